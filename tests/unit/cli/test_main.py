"""Output that cannot be written."""

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; sys.path += {path!r}; from kestrel.cli import main; {more}main.main()"
LONG = "main._overview = lambda: 'x' * 100000; "
"""Output that is more than Python holds back."""


def start(stdout: int, more: str) -> "subprocess.Popen[bytes]":
    program = PROGRAM.format(path=sys.path, more=more)
    return subprocess.Popen(
        [sys.executable, "-c", program, "--help"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


@pytest.mark.parametrize("more", ["", LONG])
def test_a_full_disk_is_one_sentence(more: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with start(full, more) as process:
            _, said = process.communicate(timeout=60)
    finally:
        os.close(full)
    assert said == b"error: the output cannot be written: no space left on device\nhint: is its disk full?\n"
    assert process.returncode == 1


@pytest.mark.parametrize("more", ["", LONG])
def test_a_reader_that_has_gone_is_told_nothing(more: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with start(writing, more) as process:
            _, said = process.communicate(timeout=60)
    finally:
        os.close(writing)
    assert (process.returncode, said) == (141, b"")


def test_an_output_that_is_closed_is_no_failure() -> None:
    with start(subprocess.DEVNULL, "import os; os.close(1); sys.stdout = None; ") as process:
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
