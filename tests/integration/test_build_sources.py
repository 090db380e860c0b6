"""Where files of a build come from besides the context: repositories, packed archives, seeded caches, agents."""

import asyncio
import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import DataLoss, KestrelError
from kestrel.build import BuildRequest
from kestrel.build.events import Event, Log
from kestrel.dockerfile import DockerfileError
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    assert made.snapshots.keys() == []
    assert os.listdir(tmp_path / "builder" / "scratch") == []
    made.database.close()


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, env=environment).stdout.strip()


@pytest.fixture
async def repository(tmp_path: Path) -> Any:
    """A repository behind `git://`, its URL, and its two commits."""
    base = tmp_path / "git"
    work = base / "app.git"
    work.mkdir(parents=True)
    git("init", "-q", cwd=work)
    (work / "docs").mkdir()
    (work / "docs/read.txt").write_text("one")
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    git("add", ".", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    git("tag", "-a", "v1", "-m", "v1", cwd=work)
    first = git("rev-parse", "HEAD", cwd=work)
    (work / "docs/read.txt").write_text("two")
    git("commit", "-qam", "second", cwd=work)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(git("--exec-path", cwd=base)) / "git-daemon"  # `git daemon` would stay in front of it
    serve = [f"--base-path={base}", "--export-all", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"]
    daemon = await asyncio.create_subprocess_exec(program, *serve, stderr=asyncio.subprocess.DEVNULL)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            await asyncio.sleep(0.02)
    yield f"git://127.0.0.1:{port}/app.git", first, git("rev-parse", "HEAD", cwd=work)
    daemon.terminate()
    await daemon.wait()


async def test_add_takes_a_repository_at_a_reference_and_a_directory(world: World, repository: Any) -> None:
    url, first, second = repository
    result = await world.build(
        f"FROM scratch\nADD {url} /head\nADD {url}#v1:docs /docs\nADD {url}?tag=v1&subdir=docs /query\n"
        f"ADD --checksum={first} {url}#v1 /pinned\nADD {url}#{second} /commit\n"
    )
    files = world.unpacked(result)
    assert (files / "head/docs/read.txt").read_text() == "two"
    assert (files / "docs/read.txt").read_text() == "one"
    assert (files / "query/read.txt").read_text() == "one"
    assert (files / "pinned/run.sh").stat().st_mode & 0o777 == 0o755
    assert (files / "commit/docs/read.txt").read_text() == "two"
    assert not (files / "head/.git").exists()


async def test_a_checksum_may_be_that_of_an_annotated_tag(world: World, repository: Any, tmp_path: Path) -> None:
    url, first, _ = repository
    git("tag", "-a", "-m", "said", "said", first, cwd=tmp_path / "git/app.git")
    tag = git("rev-parse", "said", cwd=tmp_path / "git/app.git")
    assert tag != first
    for checksum in (tag, first):
        result = await world.build(f"FROM scratch\nADD --checksum={checksum} {url}#said:docs /x\n")
        assert (world.unpacked(result) / "x/read.txt").read_text() == "one"


async def test_a_context_that_is_a_repository_keeps_its_history_when_asked(
    world: World, repository: Any, tmp_path: Path
) -> None:
    url, _, _ = repository
    work = tmp_path / "git/app.git"
    (work / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/c cat /c/.git/HEAD || echo none\n")
    git("add", ".", cwd=work)
    git("commit", "-qm", "third", cwd=work)
    for args, said in (({}, "none"), ({"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"}, git("rev-parse", "HEAD", cwd=work))):
        events: list[Event] = []
        await world.builder.build(BuildRequest(context=f"{url}#main", build_args=args), events.append)
        assert [event.line for event in events if isinstance(event, Log)][-1] == said


async def test_a_repository_that_is_kept_is_the_same_each_time(world: World, repository: Any, tmp_path: Path) -> None:
    url, first, _ = repository
    text = f"FROM scratch\nADD --keep-git-dir {url}#v1 /src\n"
    result = await world.build(text)
    checkout = world.unpacked(result) / "src"
    assert git("-c", f"safe.directory={checkout}", "rev-parse", "HEAD", cwd=checkout) == first
    (tmp_path / "again").mkdir()
    other = World(tmp_path / "again")
    again = await other.build(text)
    other.database.close()
    assert again.digest == result.digest


async def test_repositories_that_cannot_be_had_say_why(world: World, repository: Any) -> None:
    url, _, second = repository
    with pytest.raises(DockerfileError, match="has no nothing") as caught:
        await world.build(f"FROM scratch\nADD {url}#nothing /x\n")
    assert "v1" in str(caught.value.hint)
    with pytest.raises(DockerfileError, match="has no mian") as caught:
        await world.build(f"FROM scratch\nADD {url}#mian /x\n")
    assert caught.value.hint == "did you mean main?"
    with pytest.raises(DataLoss, match=f"not {second}"):
        await world.build(f"FROM scratch\nADD --checksum={second} {url}#v1 /x\n")
    with pytest.raises(DockerfileError, match="invalid repository"):
        await world.build("FROM scratch\nADD git@host:x.git#--upload-pack=sh /x\n")
    with pytest.raises(KestrelError):  # a path of this machine is no repository
        await world.build(f"FROM scratch\nADD file://{world.root}/git/app.git /x\n")


@pytest.mark.parametrize("form", ["xz", "bz2", "gz"])
async def test_add_unpacks_every_kind_of_archive(world: World, form: str) -> None:
    with tarfile.open(world.context / f"a.tar.{form}", f"w:{form}") as tar:  # type: ignore[call-overload]  # one of three
        member = tarfile.TarInfo("inside.txt")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    result = await world.build(f"FROM scratch\nADD a.tar.{form} /x/\n")
    assert (world.unpacked(result) / "x/inside.txt").read_text() == "hello"


async def test_a_broken_archive_is_an_error_and_not_half_unpacked(world: World) -> None:
    with tarfile.open(world.context / "a.tar.xz", "w:xz") as tar:
        member = tarfile.TarInfo("f")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(os.urandom(1 << 20)))
    whole = (world.context / "a.tar.xz").read_bytes()
    (world.context / "a.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataLoss):
        await world.build("FROM scratch\nADD a.tar.xz /x/\n")


async def test_a_cache_can_begin_with_what_a_stage_has(world: World) -> None:
    await world.build(
        "FROM busybox AS seed\nRUN mkdir /s && echo from seed > /s/f\n"
        "FROM busybox\nRUN --mount=type=cache,target=/c,id=one,from=seed,source=/s cat /c/f && echo more >> /c/f\n"
        "RUN --mount=type=cache,target=/c,id=one,from=seed,source=/s cat /c/f && true again\n"
    )
    assert world.log() == ["from seed", "from seed", "more"]


async def test_a_cache_that_begins_with_a_directory_has_its_owner_and_mode_unless_told_otherwise(world: World) -> None:
    await world.build(
        "FROM busybox AS seed\nRUN mkdir -m 700 /s && chown 5:6 /s\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c,id=as-it-is,from=seed,source=/s stat -c '%u:%g %a' /c\n"
        "RUN --mount=type=cache,target=/c,id=told,from=seed,source=/s,uid=7,mode=0750 stat -c '%u:%g %a' /c\n"
    )
    assert world.log() == ["5:6 700", "7:6 750"]


async def test_an_agent_reaches_the_command_by_a_socket_of_its_own(world: World, tmp_path: Path) -> None:
    met: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(await reader.read(100))
        writer.write(b"pong")
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "agent"))
    try:
        world.file("ask", "")
        await world.build(
            "FROM busybox\nRUN --mount=type=ssh,required "
            "ls -ln $SSH_AUTH_SOCK && test -S $SSH_AUTH_SOCK && env | grep SSH\n",
            ssh={"default": tmp_path / "agent"},
        )
    finally:
        server.close()
        await server.wait_closed()
    assert world.log()[-1] == "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"
    assert world.log()[0].startswith("srw-------")
    with pytest.raises(DockerfileError, match="ssh agent `default` was not given"):
        await world.build("FROM busybox\nRUN --mount=type=ssh,required true\n")


async def test_quotes_in_a_copied_here_document_stay(world: World) -> None:
    result = await world.build('FROM scratch\nARG W=you\nCOPY <<EOF /f\nit\'s "$W"\nEOF\n')
    assert (world.unpacked(result) / "f").read_text() == 'it\'s "you"\n'
