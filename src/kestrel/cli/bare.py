"""JSON, sockets and signals as the interpreter has them built in, without the library's modules around them.

A command lives for some ten milliseconds, most of it start-up. `json` brings `re`, and `re`, `socket` and `signal`
bring `enum`: together they take as long as Python itself. What we need of them is a C function each, which those
modules hand on unchanged.
"""

import _json
import _socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

__all__ = ["DONTWAIT", "STREAM", "UNIX", "Lines", "Socket", "decode", "encode", "signal"]

UNIX, STREAM, DONTWAIT = _socket.AF_UNIX, _socket.SOCK_STREAM, _socket.MSG_DONTWAIT
Socket = _socket.socket


class _Options:
    """What `json.JSONDecoder()` tells the scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = _json.make_scanner(_Options())  # type: ignore[arg-type] # typeshed takes the options for a scanner


def decode(data: "bytes | bytearray") -> "Any":
    """Return the first JSON value of a line. Raises ValueError."""
    try:
        return _scan(data.decode(), 0)[0]
    except StopIteration:
        raise ValueError(f"not JSON: {bytes(data[:80])!r}") from None


def encode(value: object) -> bytes:
    """Return a value as JSON."""
    encoder = _json.make_encoder({}, _unknown, _json.encode_basestring_ascii, None, ":", ",", False, False, False)
    return "".join(encoder(value, 0)).encode()


def _unknown(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class Lines:
    """Reads a socket line by line; what was read beyond the last line is in `buffer`."""

    def __init__(self, socket: Socket) -> None:
        self.buffer = bytearray()
        self._socket = socket

    def next(self) -> bytes:
        """Return the next line with its newline; less than that when the other end has closed."""
        while (end := self.buffer.find(b"\n")) < 0:
            data = self._socket.recv(65536)
            if not data:
                end = len(self.buffer) - 1
                break
            self.buffer += data
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        return line
