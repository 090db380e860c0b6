import errno
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from kestrel.base.errors import InvalidArgument, NotFound, PermissionDenied
from kestrel.runtime import program


def script(path: Path, text: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(text)
    path.chmod(mode)
    return path


def test_a_name_is_looked_up_in_the_path_in_order(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        script(tmp_path / folder / "tool", b"#!/bin/sh\n")
    env = {"PATH": f"{tmp_path}/none:{tmp_path}/b:{tmp_path}/a"}
    assert program.find("tool", env) == f"{tmp_path}/b/tool"


def test_a_directory_of_that_name_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a/tool").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    script(tmp_path / "b/tool", b"")
    assert program.find("tool", {"PATH": f"{tmp_path}/a:{tmp_path}/b"}) == f"{tmp_path}/b/tool"


def test_a_file_that_is_not_executable_is_named(tmp_path: Path) -> None:
    script(tmp_path / "tool", b"", 0o644)
    with pytest.raises(PermissionDenied, match="permission denied") as caught:
        program.find("tool", {"PATH": str(tmp_path)})
    assert caught.value.hint == f"{tmp_path}/tool is not executable; chmod +x it"


def test_a_missing_program_is_said_in_docker_s_words(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r'exec: "tool": executable file not found in \$PATH'):
        program.find("tool", {"PATH": str(tmp_path)})


def test_the_loader_of_a_real_program_is_read() -> None:
    dynamic = shutil.which("git") or sys.executable
    loader = program._loader(Path(dynamic).read_bytes()[:65536])
    assert loader.startswith("/lib")


@pytest.mark.parametrize(
    "head", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 58, b"\x7fELF\x01\x01" + b"\xff" * 80]
)
def test_a_damaged_program_has_no_loader_and_is_no_crash(head: bytes) -> None:
    assert program._loader(head) == ""


def test_a_fifo_is_not_opened_to_look_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    error = program.explain(str(tmp_path / "fifo"), OSError(errno.EACCES, ""))
    assert error.hint == "it is not a regular file"


def test_another_machine_s_program_names_both(tmp_path: Path) -> None:
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 21) + bytes(44)
    error = program.explain(str(script(tmp_path / "x", head)), OSError(errno.ENOEXEC, ""))
    assert isinstance(error, InvalidArgument)
    assert "exec format error" in error.message
    assert error.hint is not None
    assert "ppc64le" in error.hint


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    error = program.explain(str(script(tmp_path / "x", b"")), OSError(errno.ENOEXEC, ""))
    assert error.hint == "the file is empty"


DYNAMIC = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1)
LOADER = DYNAMIC.ljust(64, b"\0") + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, 12, 12, 1) + b"/lib/absent\0"
FOREIGN = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 21) + bytes(44)


@pytest.mark.parametrize(
    ("content", "mode", "number", "said"),
    [
        (LOADER, 0o755, errno.ENOENT, "its loader /lib/absent is not in the image"),
        (b"#!/absent\n", 0o755, errno.ENOENT, "its interpreter /absent is not in the image"),
        (b"#!/bin/sh\r\n", 0o755, errno.ENOENT, "its first line ends with CRLF"),
        (FOREIGN, 0o755, errno.ENOEXEC, "wrong architecture: the program is for ppc64le"),
        (b"", 0o755, errno.ENOEXEC, "the file is empty"),
        (b"", 0o644, errno.EACCES, "it is not executable; chmod +x"),
    ],
    ids=("loader", "interpreter", "crlf", "foreign", "empty", "plain"),
)
def test_an_interpreter_that_cannot_be_executed_is_named(
    tmp_path: Path, content: bytes, mode: int, number: int, said: str
) -> None:
    script(tmp_path / "inner", content, mode)
    script(tmp_path / "middle", f"#!{tmp_path}/inner\n".encode())
    outer = script(tmp_path / "outer", f"#! {tmp_path}/middle\t-u\n".encode())
    error = program.explain(str(outer), OSError(number, ""))
    assert f"its interpreter {tmp_path}/inner: {said}" in f"{error.message} {error.hint}"


def test_an_interpreter_that_is_a_directory_is_named_and_a_script_that_may_not_be_executed_is_one_itself(
    tmp_path: Path,
) -> None:
    outer = script(tmp_path / "outer", f"#!{tmp_path}\n".encode())
    assert (
        program.explain(str(outer), OSError(errno.EACCES, "")).hint == f"its interpreter {tmp_path}: it is a directory"
    )
    outer.chmod(0o644)
    assert program.explain(str(outer), OSError(errno.EACCES, "")).hint == (
        f"it is not executable; chmod +x {outer} in the image"
    )


def test_scripts_that_are_their_own_interpreters_are_no_endless_search(tmp_path: Path) -> None:
    outer = script(tmp_path / "outer", f"#!{tmp_path}/outer\n".encode())
    assert "levels of symbolic links" in program.explain(str(outer), OSError(errno.ELOOP, "")).message
