"""A RUN that failed, while its filesystem, environment and mounts still stand: somebody may go in and look.

    async def look(failed: FailedRun) -> None:
        async with failed.enter(tty=True) as process: ...
    await builder.build(request, progress, on_failure=look)

When `look` returns, everything is put away and the build ends with the error it had.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from kestrel.base.errors import KestrelError
from kestrel.base.ids import new_id, short
from kestrel.build.executor import Executor, Process, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRun:
    """The step, its error, and what it ran as; `enter` runs something else in the same place."""

    step: str
    title: str
    error: KestrelError
    run: Run
    executor: Executor

    @property
    def shell(self) -> tuple[str, ...]:
        """The shell that ran the command (SHELL of the Dockerfile); /bin/sh when the command needed none."""
        argv = self.run.argv
        return argv[:-2] if len(argv) > 2 and argv[-2] == "-c" else ("/bin/sh",)

    def enter(self, argv: tuple[str, ...] = (), *, tty: bool = False) -> AbstractAsyncContextManager[Process]:
        """Run `argv`, or a shell, where the command ran. Raises KestrelError when it cannot be started."""
        run = replace(self.run, id=f"step-{short(new_id())}", argv=argv or self.shell)
        return self.executor.enter(run, tty=tty)


OnFailure = Callable[[FailedRun], Awaitable[None]]
