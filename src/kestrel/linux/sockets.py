"""Sockets: the C half of the standard library's `socket`, for the reason that `signals` has.

What is missing there and needed here stands below. To checkers the class is the standard library's.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import *  # noqa: F403 - all that is there

    Socket = socket  # noqa: F405
    pair = socketpair  # noqa: F405
else:
    from _socket import *  # noqa: F403

    class Socket(socket):  # noqa: F405
        """A socket, close-on-exec."""

        __slots__ = ()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

        def accept(self):
            """Return the next connection, and its address."""
            fd, address = self._accept()
            return Socket(fileno=fd), address

    def pair(*kind):
        """Return two connected sockets."""
        return tuple(Socket(*kind, fileno=one.detach()) for one in socketpair(*kind))  # noqa: F405
