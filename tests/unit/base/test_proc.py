"""Running other programs: what comes back, what is said when it goes wrong, and that nothing is left running."""

import os
import sys
import time

import pytest

from kestrel.base.errors import NotFound, PermissionDenied, TimedOut
from kestrel.base.proc import ProcessFailed, run


async def test_output_and_status_come_back_and_input_goes_in() -> None:
    done = await run(["sh", "-c", "cat; echo bad >&2; exit 3"], input=b"hello")
    assert (done.status, done.stdout, done.stderr) == (3, b"hello", b"bad\n")
    with pytest.raises(ProcessFailed, match="sh failed with status 3: bad"):
        done.check()
    assert (await run(["true"])).check().status == 0


async def test_a_missing_and_a_forbidden_program_are_told_apart(tmp_path: "os.PathLike[str]") -> None:
    with pytest.raises(NotFound, match="not installed"):
        await run(["ktest-no-such-program"])
    with pytest.raises(PermissionDenied):
        await run([str(tmp_path)])


async def test_a_program_that_takes_too_long_is_killed() -> None:
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        await run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert time.monotonic() - begun < 10


async def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    assert (await run(["true"], input=b"x" * 1_000_000)).status == 0
