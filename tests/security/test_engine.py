"""What the engine does with a container's files and output while the container works against it."""

import asyncio
import os
import resource
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from kestrel.base.errors import TimedOut
from kestrel.engine.shims import SandboxRequest, Zygote
from kestrel.linux import cgroups
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_seccomp, default_spec
from kestrel.testing.instance import Instance

pytestmark = pytest.mark.root

COPIES = "CVE-2018-15664: copying while names are swapped"
OUTPUT = "CVE-2022-31030: output without end"
SECRET = "the host's secret\n"

FLIP = """
mkdir -p /d /e; echo mine >/d/secret; i=0
while :; do
    mv /d /away; ln -s {outside} /d; mv -T /d /e 2>/dev/null; rm -rf /d; mv /away /d
    ln -sfn {outside} /e
    ln -sfn ../../../../../../../../..{outside} /f
done
"""


@pytest.mark.threat(9, COPIES, against="kestrel")
def test_what_is_copied_out_of_a_running_container_is_the_container_s(
    kestrel: Instance, outside: Path, tmp_path: Path, seconds: float
) -> None:
    """Kestrel has no `cp`; export and commit read a running container's files as it would."""
    name = kestrel("run", "-d", "box", "sh", "-c", FLIP.format(outside=outside)).out.strip()
    due = time.monotonic() + 2 * seconds
    while time.monotonic() < due:
        archive = tmp_path / "out.tar"
        archive.unlink(missing_ok=True)
        if kestrel("export", "-o", str(archive), name, code=None).code == 0:
            with tarfile.open(archive) as tar:
                for member in tar:
                    data = tar.extractfile(member) if member.isfile() else None
                    assert data is None or data.read(100) != SECRET.encode(), member.name
        kestrel("commit", name, "copied:1", code=None)
        assert os.listdir(outside) == ["secret"]
    seen = kestrel("run", "--rm", "copied:1", "sh", "-c", "cat /d/secret /e/secret /f/secret", code=None)
    assert SECRET not in seen.out


@pytest.mark.threat(9, COPIES, against="kestrel")
def test_a_volume_s_first_files_are_copied_from_the_image_alone(kestrel: Instance, outside: Path) -> None:
    """A new volume begins with what the image has in its place: an image may have a link there."""
    dockerfile = f"FROM box\nRUN ln -s {outside} /v && mkdir /w && ln -s {outside}/secret /w/link\n"
    kestrel.build("linked:1", dockerfile)
    for place in ("/v", "/w", "/v/sub"):
        answer = kestrel("run", "--rm", "-v", f"ktest-fill{place.replace('/', '-')}:{place}", "linked:1",
                         "sh", "-c", f"cat {place}/secret {place}/link; touch {place}/new", code=None)  # fmt: skip
        assert SECRET not in answer.out
        assert os.listdir(outside) == ["secret"]


@pytest.fixture
def root(layer: Path) -> Rootfs:
    return Rootfs(lowers=(Lower(path=str(layer)),))


@pytest.mark.threat(26, OUTPUT, against="kestrel")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_without_end_is_cut_and_costs_no_memory(root: Rootfs, stream: str) -> None:
    """The command fills its pipe for ever: what is kept has a limit, and so has the time."""
    directory = Path(tempfile.mkdtemp(prefix="ktest-exec-"))
    group = f"kestrel-test-{directory.name}"
    zygote = await Zygote.start(directory / "run")
    shim = await zygote.shim(SandboxRequest(id="box", directory=str(directory), cgroup=group))
    try:
        spec = default_spec(["sleep", "600"])
        spec["linux"]["seccomp"] = default_seccomp()
        await shim.create("c", spec, rootfs=root, cgroup=f"{group}/c")
        await shim.start("c")
        script = "yes | head -c 40000000" + (" >&2" if stream == "stderr" else "")
        done = await shim.exec_sync("c", {"args": ["sh", "-c", script]}, timeout=60, limit=1 << 20)
        assert (len(done.stdout), len(done.stderr)) in ((1 << 20, 0), (0, 1 << 20))
        assert done.exit_code == 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        endless = "yes" + (" >&2" if stream == "stderr" else "")
        with pytest.raises(TimedOut):
            await shim.exec_sync("c", {"args": ["sh", "-c", endless]}, timeout=2)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB: a default limit is 16 MiB
        async with asyncio.timeout(10):
            while b"yes" in (await shim.exec_sync("c", {"args": ["ps"]})).stdout:
                pass  # it was killed, and is about to be gone
    finally:
        await shim.shutdown()
        await zygote.close()
        cgroups.destroy(group)
        shutil.rmtree(directory)


@pytest.mark.threat(26, OUTPUT, against="kestrel")
def test_a_container_that_floods_its_log_fills_no_disk(kestrel: Instance) -> None:
    name = kestrel("run", "-d", "box", "sh", "-c", "yes 0123456789012345678901234567890123456789").out.strip()
    time.sleep(4)  # a flood has no state to wait for
    kestrel("kill", name)
    kestrel("wait", name)
    sizes = [path.stat().st_size for path in (kestrel.root / "containers").rglob("*log*") if path.is_file()]
    assert sizes
    assert sum(sizes) < 200 << 20
