"""The files that a request means: what is read, and what is refused with a sentence."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.build import BuildRequest
from kestrel.build.leaks import needles
from kestrel.build.request import read_files

TEXT = "FROM scratch\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe with a line in it; whoever reads it all the same is let go after a while."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, TEXT.encode())

    def close() -> None:
        with suppress(OSError):
            os.close(fd)

    release = threading.Timer(10, close)
    release.start()
    yield path
    release.cancel()
    release.join()
    close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "Dockerfile").write_text(TEXT)
    return made


def test_a_pipe_is_no_dockerfile(context: Path, pipe: Path) -> None:
    with pytest.raises(InvalidArgument, match=f"cannot read {pipe}: it is not a regular file"):
        read_files(BuildRequest(context=context, dockerfile=pipe))


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_a_pipe_is_no_ignore_file(context: Path, pipe: Path, name: str) -> None:
    pipe.rename(context / name)
    with pytest.raises(InvalidArgument, match=f"cannot read {context / name}: it is not a regular file"):
        read_files(BuildRequest(context=context))


def test_a_pipe_is_no_secret(pipe: Path) -> None:
    with pytest.raises(KestrelError, match=f"cannot read the secret `key` from {pipe}: it is not a regular file"):
        needles({"key": pipe})


def test_what_is_too_large_is_not_read_into_memory(context: Path) -> None:
    with open(context / "large", "wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(InvalidArgument, match="large is larger than 4 MiB"):
        read_files(BuildRequest(context=context, dockerfile=context / "large"))
    with pytest.raises(InvalidArgument, match="Dockerfile is larger than 4 MiB"):
        read_files(BuildRequest(context=context, dockerfile=b"#" * (4 << 20) + b"#"))
    with pytest.raises(InvalidArgument, match="the secret `key` is larger than 1 MiB"):
        needles({"key": context / "large"})
    (context / "large").rename(context / ".dockerignore")
    with pytest.raises(InvalidArgument, match="dockerignore is larger than 4 MiB"):
        read_files(BuildRequest(context=context))


def test_a_directory_is_no_ignore_file(context: Path) -> None:
    (context / ".dockerignore").mkdir()
    with pytest.raises(InvalidArgument, match=r"cannot read .*/\.dockerignore: is a directory"):
        read_files(BuildRequest(context=context))


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile"])
def test_a_link_to_itself_is_no_file(context: Path, name: str) -> None:
    (context / name).unlink(missing_ok=True)
    (context / name).symlink_to(name)
    with pytest.raises(InvalidArgument, match=f"cannot read .*/{name}: too many levels of symbolic links"):
        read_files(BuildRequest(context=context))


def test_a_dockerfile_without_a_file_has_no_ignore_file_of_its_own(context: Path) -> None:
    (context / ".dockerignore").write_text("hidden\n")
    (context / "Dockerfile.dockerignore").write_text("other\n")
    _, _, ignore = read_files(BuildRequest(context=context, dockerfile=TEXT.encode()))
    assert ignore.name == ".dockerignore"
    _, _, ignore = read_files(BuildRequest(context=context))
    assert ignore.name == "Dockerfile.dockerignore"
