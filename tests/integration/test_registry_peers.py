"""skopeo, podman, buildah and docker, unmodified, push to the registry and pull from it."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.distribution import Client
from kestrel.http.server import Server, Tcp
from kestrel.oci.reference import Reference
from kestrel.registry import Registry
from kestrel.testing.images import TinyImage, tiny_image

pytestmark = pytest.mark.clients


@dataclass
class Served:
    """A registry that holds one image, `team/app:v1`, put there by a local link."""

    host: str
    image: TinyImage
    registry: Registry


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    root = tmp_path / "kestrel"
    root.mkdir()
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    registry = Registry(content, database)
    image = tiny_image(content, files={"etc/motd": b"hello"}, cmd=["cat", "/etc/motd"], labels={"made": "here"})
    registry.repositories.link("team/app", "v1", image.manifest.digest)
    async with Server(registry.handle, [Tcp()]) as server:
        yield Served(server.addresses[0].removeprefix("http://"), image, registry)
    database.close()


async def run(*argv: "str | Path", environment: "dict[str, str] | None" = None) -> str:
    """Run a client to its end; a failure shows what it said."""
    if shutil.which(str(argv[0])) is None:
        pytest.skip(f"{argv[0]} is not installed (apt-get install {argv[0]})")
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{' '.join(map(str, argv))}\n{said.decode(errors='replace')}"
    return said.decode()


async def layers_of(host: str, name: str) -> int:
    """Return how many layers an image on the registry has, having read every one of them with our own client."""
    from kestrel.oci.manifest import Manifest

    async with Client.open() as client:
        ref = Reference.parse(f"{host}/{name}")
        _, data = await client.manifest(ref)
        manifest = Manifest.decode(data)
        for each in manifest.references():
            assert sum([len(piece) async for piece in client.blob(ref, each)]) == each.size
        return len(manifest.layers)


async def test_skopeo_copies_from_and_to_and_between_repositories(served: Served, tmp_path: Path) -> None:
    here = f"docker://{served.host}/"
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    await run("skopeo", "copy", *plain, f"{here}team/app:v1", f"oci:{tmp_path}/layout:v1")
    for digest, data in served.image.blobs.items():
        assert (tmp_path / "layout/blobs/sha256" / digest.hex).read_bytes() == data
    await run("skopeo", "copy", *plain, f"oci:{tmp_path}/layout:v1", f"{here}other/app:v2")
    await run("skopeo", "copy", *plain, f"{here}team/app:v1", f"{here}third/app:v3")
    await run("skopeo", "copy", *plain, "--format", "v2s2", f"{here}team/app:v1", f"{here}docker/app:v4")
    for name in ("other/app:v2", "third/app:v3", "docker/app:v4"):
        assert await layers_of(served.host, name) == len(served.image.tars)
    assert '"v1"' in await run("skopeo", "list-tags", "--tls-verify=false", f"{here}team/app")
    inspected = await run("skopeo", "inspect", "--tls-verify=false", f"{here}other/app:v2")
    assert served.image.manifest.digest in inspected
    await run("skopeo", "delete", "--tls-verify=false", f"{here}third/app:v3")
    assert served.registry.repositories.tags("third/app") == []


async def test_skopeo_copies_with_zstd_and_by_digest(served: Served, tmp_path: Path) -> None:
    here = f"docker://{served.host}/"
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    source = f"{here}team/app@{served.image.manifest.digest}"
    await run("skopeo", "copy", *plain, "--dest-compress-format", "zstd", source, f"dir:{tmp_path}/dir")
    await run("skopeo", "copy", *plain, "--dest-compress-format", "zstd", f"dir:{tmp_path}/dir", f"{here}z/app:v1")
    assert await layers_of(served.host, "z/app:v1") == len(served.image.tars)


@pytest.mark.root
@pytest.mark.parametrize("program", ["podman", "buildah"])
async def test_podman_and_buildah_pull_and_push(served: Served, tmp_path: Path, program: str) -> None:
    run_root = Path(tempfile.mkdtemp(prefix="ktest-"))  # podman takes no more than 50 characters
    client = [program, "--root", tmp_path / "root", "--runroot", run_root, "--storage-driver", "vfs"]
    try:
        await run(*client, "pull", "--tls-verify=false", f"{served.host}/team/app:v1")
        assert served.image.id.hex in await run(*client, "images", "--no-trunc", "-q")
        await run(*client, "tag", f"{served.host}/team/app:v1", f"{served.host}/{program}/app:v2")
        await run(*client, "push", "--tls-verify=false", f"{served.host}/{program}/app:v2")
        assert await layers_of(served.host, f"{program}/app:v2") == len(served.image.tars)
    finally:
        with contextlib.suppress(AssertionError):
            await run(*client, "rmi", "--all", "--force")
        shutil.rmtree(run_root)


@pytest_asyncio.fixture
async def docker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[str]]:
    """A docker daemon of our own, in a directory of its own, without network; yields the client's command."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("dockerd is not installed (apt-get install docker.io)")
    root = tmp_path_factory.mktemp("docker")
    address = f"unix://{root}/d.sock"
    options = [
        f"--data-root={root}/data",
        f"--exec-root={root}/exec",
        f"--pidfile={root}/pid",
        f"--host={address}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--storage-driver=vfs",
        "--group=root",
    ]
    with (root / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec("dockerd", *options, stdout=log, stderr=log)
    client = ["docker", "--host", address, "--config", str(root)]
    try:
        for _ in range(300):
            if process.returncode is not None:
                pytest.fail((root / "log").read_text()[-2000:])
            ready = await asyncio.create_subprocess_exec(
                *client, "version", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            if await ready.wait() == 0:
                break
            await asyncio.sleep(0.1)
        yield client
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.root
async def test_docker_pulls_and_pushes(served: Served, docker: list[str]) -> None:
    await run(*docker, "pull", f"{served.host}/team/app:v1")
    inspected = await run(*docker, "image", "inspect", f"{served.host}/team/app:v1")
    assert served.image.id in inspected
    assert '"made": "here"' in inspected
    await run(*docker, "tag", f"{served.host}/team/app:v1", f"{served.host}/docker/app:v2")
    await run(*docker, "push", f"{served.host}/docker/app:v2")
    assert await layers_of(served.host, "docker/app:v2") == len(served.image.tars)
    await run(*docker, "rmi", "-f", f"{served.host}/team/app:v1", f"{served.host}/docker/app:v2")
    await run(*docker, "pull", f"{served.host}/docker/app:v2")
