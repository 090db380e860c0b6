"""crane, regctl, oras, helm and cosign: what they do with docker-registry they do with ours.

They are no packages of this system; where somebody has them on the PATH they are driven, and else skipped aloud.
"""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.http.server import Server, Tcp
from kestrel.registry import Registry
from kestrel.testing.images import tiny_image
from kestrel.testing.instance import free_port

from .test_registry_peers import run

pytestmark = pytest.mark.clients


@contextlib.asynccontextmanager
async def ours(root: Path) -> AsyncIterator[str]:
    database = Database(root / "kestrel.db")
    async with Server(Registry(Store(root, database), database).handle, [Tcp()]) as server:
        yield server.addresses[0].removeprefix("http://")
    database.close()


@contextlib.asynccontextmanager
async def docker_registry(root: Path) -> AsyncIterator[str]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    port = free_port()
    (root / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
    )
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "docker-registry", "serve", str(root / "config.yml"), stdout=null, stderr=null
    )
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                await asyncio.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest_asyncio.fixture(params=[ours, docker_registry], ids=["kestrel", "docker-registry"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A registry with the image `team/app:v1`, pushed there by skopeo."""
    for name in ("registry", "made", "home"):
        (tmp_path / name).mkdir()
    database = Database(tmp_path / "made/kestrel.db")
    content = Store(tmp_path / "made", database)
    image = tiny_image(content, files={"etc/motd": b"hello"}, cmd=["cat", "/etc/motd"])
    layout = tmp_path / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    for digest, data in image.blobs.items():
        (layout / "blobs/sha256" / digest.hex).write_bytes(data)
    entry = {"mediaType": image.manifest.media_type, "digest": image.manifest.digest, "size": image.manifest.size}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    database.close()
    async with request.param(tmp_path / "registry") as address:
        await run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{address}/team/app:v1")
        yield address


async def test_crane_copies_lists_pulls_and_deletes(host: str, tmp_path: Path) -> None:
    await run("crane", "copy", "--insecure", f"{host}/team/app:v1", f"{host}/other/app:v2")
    assert (await run("crane", "ls", "--insecure", f"{host}/other/app")).split() == ["v2"]
    assert "other/app" in (await run("crane", "catalog", "--insecure", host)).split()
    await run("crane", "pull", "--insecure", f"{host}/other/app:v2", str(tmp_path / "app.tar"))
    await run("crane", "push", "--insecure", str(tmp_path / "app.tar"), f"{host}/third/app:v3")
    await run("crane", "validate", "--insecure", "--remote", f"{host}/third/app:v3")
    digest = (await run("crane", "digest", "--insecure", f"{host}/other/app:v2")).strip()
    await run("crane", "delete", "--insecure", f"{host}/other/app@{digest}")
    with pytest.raises(AssertionError, match="MANIFEST_UNKNOWN"):
        await run("crane", "manifest", "--insecure", f"{host}/other/app:v2")


async def test_regctl_copies_tags_lists_and_puts_artifacts(host: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    await run("regctl", "registry", "set", "--tls=disabled", host, environment=home)
    await run("regctl", "image", "copy", f"{host}/team/app:v1", f"{host}/other/app:v2", environment=home)
    assert (await run("regctl", "tag", "ls", f"{host}/other/app", environment=home)).split() == ["v2"]
    await run("regctl", "image", "export", f"{host}/other/app:v2", str(tmp_path / "app.tar"), environment=home)
    await run("regctl", "image", "import", f"{host}/third/app:v3", str(tmp_path / "app.tar"), environment=home)
    (tmp_path / "note").write_text("a note")
    put = ["regctl", "artifact", "put", "--artifact-type", "text/note", "-f", str(tmp_path / "note")]
    await run(*put, "--subject", f"{host}/team/app:v1", environment=home)
    assert "text/note" in await run("regctl", "artifact", "list", f"{host}/team/app:v1", environment=home)
    await run("regctl", "tag", "rm", f"{host}/other/app:v2", environment=home)
    assert (await run("regctl", "tag", "ls", f"{host}/third/app", environment=home)).split() == ["v3"]


async def test_oras_pushes_pulls_attaches_discovers_and_copies(host: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note")
    plain = ["--plain-http", "--disable-path-validation"]
    await run("oras", "push", *plain, f"{host}/notes:v1", f"{tmp_path}/note.txt:text/plain")
    assert (await run("oras", "repo", "tags", "--plain-http", f"{host}/notes")).split() == ["v1"]
    attach = ["oras", "attach", *plain, "--artifact-type", "text/note", f"{host}/team/app:v1"]
    await run(*attach, f"{tmp_path}/note.txt:text/plain")
    assert "text/note" in await run("oras", "discover", "--plain-http", f"{host}/team/app:v1")
    both = ["--from-plain-http", "--to-plain-http"]
    await run("oras", "copy", "-r", *both, f"{host}/team/app:v1", f"{host}/copied/app:v1")
    assert "text/note" in await run("oras", "discover", "--plain-http", f"{host}/copied/app:v1")
    (tmp_path / "note.txt").unlink()
    pull = ["oras", "pull", "--plain-http", "--allow-path-traversal", "-o", str(tmp_path / "out")]
    await run(*pull, f"{host}/notes:v1")
    assert (tmp_path / "note.txt").read_text() == "a note"


async def test_helm_pushes_and_pulls_a_chart(host: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home")}
    (tmp_path / "chart").mkdir()
    (tmp_path / "chart/Chart.yaml").write_text("apiVersion: v2\nname: chart\nversion: 0.1.0\n")
    await run("helm", "package", str(tmp_path / "chart"), "-d", str(tmp_path), environment=home)
    packed = tmp_path / "chart-0.1.0.tgz"
    await run("helm", "push", str(packed), f"oci://{host}/charts", "--plain-http", environment=home)
    pull = ["helm", "pull", f"oci://{host}/charts/chart", "--version", "0.1.0", "--plain-http"]
    await run(*pull, "-d", str(tmp_path / "home"), environment=home)
    assert (tmp_path / "home/chart-0.1.0.tgz").read_bytes() == packed.read_bytes()


async def test_cosign_signs_and_verifies(host: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "COSIGN_PASSWORD": ""}
    key = str(tmp_path / "home/it")
    await run("cosign", "generate-key-pair", "--output-key-prefix", key, environment=home)
    inspected = json.loads(await run("skopeo", "inspect", "--tls-verify=false", f"docker://{host}/team/app:v1"))
    image, plain = f"{host}/team/app@{inspected['Digest']}", "--allow-http-registry"
    await run("cosign", "sign", "--key", f"{key}.key", "--tlog-upload=false", plain, "-y", image, environment=home)
    verify = ["cosign", "verify", "--key", f"{key}.pub", "--insecure-ignore-tlog", plain]
    await run(*verify, image, environment=home)
    with pytest.raises(AssertionError):
        await run(*verify, f"{host}/team/app@sha256:{'0' * 64}", environment=home)
