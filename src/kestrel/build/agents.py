"""ssh agents for commands of a build: a socket of our own in front of the person's.

The socket gets the mode and owner that the mount asks for, and goes away with the step; the agent itself is never
visible in a build, and neither is the path it has on this machine.
"""

import asyncio
import os
import stat
from pathlib import Path

from kestrel.base.errors import InvalidArgument, Unavailable

_PIECE = 1 << 16


class Agent:
    """A listening socket whose connections are handed on."""

    def __init__(self, server: asyncio.Server, path: Path) -> None:
        self._server = server
        self.path = path

    @classmethod
    async def open(cls, path: Path, target: Path, *, mode: int, owner: tuple[int, int]) -> "Agent":
        """Listen at `path` for connections to the agent at `target`. Raises InvalidArgument when that is none."""
        try:
            if not stat.S_ISSOCK(os.stat(target).st_mode):
                raise InvalidArgument(
                    f"{target} is not the socket of an ssh agent", hint="ssh-add the key, then --ssh default"
                )
        except OSError as error:
            raise Unavailable(f"the ssh agent {target} cannot be reached: {error.strerror}") from None

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there, back = await asyncio.open_unix_connection(str(target))
            except OSError:
                writer.close()
                return
            await asyncio.gather(_pump(reader, back), _pump(there, writer), return_exceptions=True)

        server = await asyncio.start_unix_server(serve, str(path))
        os.chown(path, *owner)
        path.chmod(mode)
        return cls(server, path)

    async def close(self) -> None:
        """Stop listening; connections end with the processes that hold them."""
        self._server.close()
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        writer.close()
