"""Run another program and collect what it says: argument lists only, never a shell, each command logged.

The daemon's containers do not come this way (the zygote starts those); this is for small foreign programs such as
credential helpers. `run` returns whatever the exit status; `check` raises `ProcessFailed` for one that is not zero.
"""

import asyncio
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kestrel.base.errors import FailedPrecondition, NotFound, PermissionDenied, TimedOut

_log = logging.getLogger(__name__)
_KEPT = 4096


class ProcessFailed(FailedPrecondition):
    """A program ended with a status other than zero; the message carries the end of what it wrote to stderr."""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended. `status` is negative for a signal, as in `subprocess`."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    def check(self) -> "Completed":
        """Return self when the status is zero, else raise ProcessFailed."""
        if self.status == 0:
            return self
        said = (self.stderr or self.stdout)[-_KEPT:].decode(errors="replace").strip()
        raise ProcessFailed(f"{self.argv[0]} failed with status {self.status}" + (f": {said}" if said else ""))


async def run(
    argv: Sequence[str],
    *,
    input: bytes = b"",  # noqa: A002 - the word subprocess uses
    timeout: float = 60.0,
    environment: "Mapping[str, str] | None" = None,
) -> Completed:
    """Run a program to its end within `timeout` seconds.

    Raises NotFound when there is no such program, PermissionDenied when it cannot be executed, TimedOut (after
    killing it) when it takes too long. Arguments are logged, input and output are not: they may be secrets.
    """
    _log.debug("run %s", shlex.join(argv))
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment) if environment is not None else None,
        )
    except FileNotFoundError as error:
        raise NotFound(f"program {argv[0]} is not installed") from error
    except PermissionError as error:
        raise PermissionDenied(f"program {argv[0]} may not be executed") from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(input)
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} did not end within {timeout:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Completed(tuple(argv), process.returncode, stdout, stderr)
