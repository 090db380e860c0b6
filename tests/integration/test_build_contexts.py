"""Contexts that are elsewhere, and further ones by name."""

import asyncio
import io
import json
import os
import shutil
import socket
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.build import BuildRequest
from kestrel.build.collect import Policy
from kestrel.build.outputs import parse_output
from kestrel.dockerfile import DockerfileError
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
MODIFIED = "Wed, 15 Nov 2023 10:00:01 GMT"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    assert made.snapshots.keys() == []
    assert os.listdir(tmp_path / "builder" / "scratch") == []
    made.database.close()


Pages = dict[str, bytes]


@pytest.fixture
async def site() -> AsyncIterator[tuple[str, Pages]]:
    """A web server, its address, and its pages to fill."""
    pages: Pages = {}

    async def answer(request: web.Request) -> web.Response:
        if request.path not in pages:
            raise web.HTTPNotFound
        return web.Response(body=pages[request.path], headers={"Last-Modified": MODIFIED})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", pages
        await runner.cleanup()


def packed(compression: str = "", **files: "str | Path") -> bytes:
    """A tar; a Path is a link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.mtime = 1_600_000_000
            if isinstance(content, Path):
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                archive.addfile(info)
            else:
                info.size = len(content.encode())
                archive.addfile(info, io.BytesIO(content.encode()))
    return buffer.getvalue()


async def built(world: World, context: "str | Path", **options: Any) -> Any:
    return await world.builder.build(BuildRequest(context=context, **options))


async def test_an_archive_behind_a_url_is_a_context(world: World, site: tuple[str, Pages]) -> None:
    url, pages = site
    pages["/app.tar.gz"] = packed(
        "gz", Dockerfile="FROM scratch\nCOPY d /d\n", d__a="1", other__Dockerfile="FROM scratch"
    )
    files = world.unpacked(await built(world, f"{url}/app.tar.gz"))
    assert (files / "d/a").read_text() == "1"
    result = await built(world, f"{url}/app.tar.gz", dockerfile=Path("other/Dockerfile"))
    assert world.config(result).rootfs.diff_ids == ()
    collected = await world.builder.collect(Policy(everything=True))
    assert f"{url}/app.tar.gz" in {each.held.name for each in collected.removed if each.held.kind == "context"}
    assert not list((world.root / "builder/contexts").iterdir())


async def test_a_page_that_is_no_archive_is_a_dockerfile_without_files(world: World, site: tuple[str, Pages]) -> None:
    url, pages = site
    pages["/df"] = b"FROM scratch\nCOPY <<X /a\nhi\nX\n"
    for name in (None, Path("df")):
        assert (world.unpacked(await built(world, f"{url}/df", dockerfile=name)) / "a").read_text() == "hi\n"


async def test_the_time_of_a_remote_context_is_what_its_server_says(world: World, site: tuple[str, Pages]) -> None:
    url, pages = site
    pages["/c.tar"] = packed(Dockerfile="FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL t=$SOURCE_DATE_EPOCH\n", a="1")
    result = await built(world, f"{url}/c.tar", build_args={"SOURCE_DATE_EPOCH": "context"})
    assert world.config(result).created == "2023-11-15T10:00:01Z"
    assert world.config(result).config.labels == {"t": "1700042401"}
    world.file("Dockerfile", "FROM scratch\nCOPY --from=src a /\n")
    result = await built(
        world, world.context, contexts={"src": f"{url}/c.tar"}, build_args={"SOURCE_DATE_EPOCH": "src"}
    )
    assert world.config(result).created == "2023-11-15T10:00:01Z"


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.dockerignore", ".dockerignore"])
async def test_a_remote_context_cannot_show_files_of_this_machine(
    world: World, site: tuple[str, Pages], tmp_path: Path, name: str
) -> None:
    url, pages = site
    (tmp_path / "private").write_text("secret words\n")
    members: dict[str, str | Path] = {"Dockerfile": "FROM scratch\n", name: tmp_path / "private"}
    pages["/evil.tar"] = packed(**members)
    with pytest.raises(InvalidArgument, match="leads outside") as caught:
        await built(world, f"{url}/evil.tar")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.dockerignore", ".dockerignore"])
async def test_a_pipe_in_a_remote_context_does_not_stop_the_builder(
    world: World, site: tuple[str, Pages], name: str
) -> None:
    url, pages = site
    buffer = io.BytesIO(packed(Dockerfile="FROM scratch\n"))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        pipe = tarfile.TarInfo(name)
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    pages["/evil.tar"] = buffer.getvalue()
    try:
        async with asyncio.timeout(20):
            with pytest.raises(InvalidArgument, match="it is not a regular file"):
                await built(world, f"{url}/evil.tar")
    finally:
        for path in (world.root / "builder/contexts").glob(f"*/{name}"):
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets go whoever waits for its other end


async def test_an_archive_cannot_put_files_outside_of_its_context(
    world: World, site: tuple[str, Pages], tmp_path: Path
) -> None:
    url, pages = site
    (tmp_path / "victim").mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, target in (
            ("Dockerfile", tarfile.REGTYPE, ""),
            ("out", tarfile.SYMTYPE, str(tmp_path / "victim")),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info, io.BytesIO(b""))
        for name in ("out/a", "../../b", f"{tmp_path}/victim/c"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    pages["/evil.tar"] = buffer.getvalue()
    with pytest.raises(KestrelError):
        await built(world, f"{url}/evil.tar")
    assert os.listdir(tmp_path / "victim") == []
    assert not (tmp_path / "b").exists()


async def test_a_context_by_name_stands_for_a_stage_or_an_image_of_that_name(world: World, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_text("from the directory")
    text = "FROM busybox AS tools\nRUN echo never\nFROM scratch\nCOPY --from=tools /a /\n"
    result = await world.build(text, contexts={"tools": files})
    assert (world.unpacked(result) / "a").read_text() == "from the directory"
    assert world.log() == []  # the stage that is replaced is not built


async def test_a_stage_can_begin_with_a_directory(world: World, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").write_text("1")
    result = await world.build("FROM base\nCOPY Dockerfile /b\n", contexts={"base": tmp_path / "root"})
    assert sorted(p.name for p in world.unpacked(result).iterdir()) == ["a", "b"]


async def test_an_image_can_stand_for_another_also_by_its_full_name(world: World) -> None:
    await world.build("FROM scratch\nENV ME=other\n", tags=("other",))
    for name in ("thing", "docker.io/library/thing:latest"):
        result = await world.build("FROM thing\n", contexts={name: "docker-image://other"})
        assert "ME=other" in world.config(result).config.env
    result = await world.build("FROM busybox\nCOPY Dockerfile /\n", contexts={"busybox": "docker-image://scratch"})
    assert len(world.config(result).rootfs.diff_ids) == 1


async def test_an_image_that_nothing_names_is_not_looked_for(world: World) -> None:
    await world.build("FROM scratch\nLABEL a=b\n", contexts={"unused": "docker-image://nowhere.example/x"})
    with pytest.raises(DockerfileError, match="nowhere"):
        await world.build("FROM used\n", contexts={"used": "docker-image://nowhere.example/x"})


async def test_an_image_of_a_layout_can_be_built_on(world: World, tmp_path: Path) -> None:
    world.file("a", "1")
    archive = tmp_path / "made.tar"
    made = await world.build(
        "FROM scratch\nCOPY a /\nENV ME=layout\n", tags=("made",), outputs=(parse_output(f"type=oci,dest={archive}"),)
    )
    layout = tmp_path / "layout"
    with tarfile.open(archive) as file:
        file.extractall(layout)
    result = await world.build("FROM x\nCOPY Dockerfile /\n", contexts={"x": f"oci-layout://{layout}@{made.digest}"})
    assert "ME=layout" in world.config(result).config.env
    with pytest.raises(NotFound, match="does not name one image"):
        await world.build("FROM x\n", contexts={"x": f"oci-layout://{layout}@sha256:{'0' * 64}"})
    with pytest.raises(NotFound, match="cannot read"):
        await world.build("FROM x\n", contexts={"x": f"oci-layout://{tmp_path}/nothing"})


async def test_an_image_of_a_layout_can_be_named_by_its_tag(world: World, tmp_path: Path) -> None:
    layout = tmp_path / "lay:out"
    for me in ("1", "2"):
        archive = tmp_path / f"{me}.tar"
        await world.build(
            f"FROM scratch\nENV ME={me}\n", tags=(f"made:{me}",), outputs=(parse_output(f"type=oci,dest={archive}"),)
        )
        with tarfile.open(archive) as file:
            file.extractall(tmp_path / me)
    shutil.copytree(tmp_path / "1", layout)
    shutil.copytree(tmp_path / "2/blobs", layout / "blobs", dirs_exist_ok=True)
    indexes = [json.loads((tmp_path / me / "index.json").read_text()) for me in ("1", "2")]
    entries = [entry for index in indexes for entry in index["manifests"]]
    (layout / "index.json").write_text(json.dumps({**indexes[0], "manifests": entries}))
    result = await world.build("FROM x\n", contexts={"x": f"oci-layout://{layout}:2"})
    assert "ME=2" in world.config(result).config.env
    with pytest.raises(NotFound, match="has no tag `3`") as caught:
        await world.build("FROM x\n", contexts={"x": f"oci-layout://{layout}:3"})
    assert caught.value.hint == "it has 1, 2"
    with pytest.raises(NotFound, match="does not name one image"):
        await world.build("FROM x\n", contexts={"x": f"oci-layout://{layout}"})


async def test_files_are_added_through_the_proxy_of_the_environment(
    world: World, site: tuple[str, Pages], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, pages = site
    pages["/file"] = b"by way of the proxy"
    monkeypatch.setenv("http_proxy", proxy)
    result = await world.build("FROM scratch\nADD http://files.invalid/file /\n")
    assert (world.unpacked(result) / "file").read_bytes() == b"by way of the proxy"
    monkeypatch.setenv("no_proxy", "files.invalid")
    with pytest.raises(KestrelError, match=r"cannot find the address of files\.invalid: name does not resolve"):
        await world.build("FROM scratch\nADD http://files.invalid/other /\n")


async def test_a_server_that_does_not_listen_is_said_to_be_that(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(KestrelError, match=rf"cannot reach {place}: connection refused\n  Dockerfile:2:") as caught:
            await world.build(f"FROM scratch\nADD http://{place}/x /\n")
    assert "nothing listens there" in str(caught.value.hint)
