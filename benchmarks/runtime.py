"""The low-level runtime alone, beside runc and crun: start to end of `true`, exec, and memory of a shim.

    python -m benchmarks.runtime [ROUNDS]

The same bundle for all: busybox, the default spec with its seccomp profile, namespaces of its own. Kestrel's time is
taken by its client and covers create, start, the end with its exit file synced to disk, and delete, including the
cgroup. Two forms: in a sandbox that stands already (as a Pod's second container), and with a sandbox of its own,
whose network namespace the others make too. crun refuses hybrid cgroups; where these are mounted it runs without any,
in a private mount namespace, and its time is so much the better for it.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.measure import Row, command, machine, memory_pss, table
from kestrel.engine.shims import SandboxRequest, Shim, Zygote
from kestrel.linux import cgroups
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_seccomp, default_spec

GROUP = "kestrel-bench"
SHIMS = 20


class Bench:
    """The bundle, and Kestrel's side."""

    def __init__(self, directory: Path, zygote: Zygote) -> None:
        self.directory = directory
        self.zygote = zygote
        self.number = 0

    def spec(self, *args: str) -> dict[str, Any]:
        spec = default_spec(args)
        spec["linux"]["seccomp"] = default_seccomp()
        spec["root"] = {"path": str(self.directory / "rootfs")}
        return spec

    async def sandbox(self) -> Shim:
        self.number += 1
        place = self.directory / f"box{self.number}"
        place.mkdir()
        return await self.zygote.shim(
            SandboxRequest(id=place.name, directory=str(place), hostname="bench", cgroup=f"{GROUP}/{place.name}")
        )

    async def container(self, shim: Shim, *, overlay: bool = False) -> None:
        self.number += 1
        name = f"c{self.number}"
        rootfs = None
        if overlay:
            upper, work = (self.directory / f"{name}-{part}" for part in ("upper", "work"))
            upper.mkdir()
            work.mkdir()
            layer = Lower(path=str(self.directory / "rootfs"))
            rootfs = Rootfs(lowers=(layer,), upper=str(upper), work=str(work))
        await shim.create(name, self.spec("true"), rootfs, cgroup=f"{GROUP}/{name}")
        await shim.start(name)
        await shim.wait(name)
        await shim.delete(name)

    async def whole(self) -> None:
        shim = await self.sandbox()
        await self.container(shim)
        await shim.shutdown()


def bundle(directory: Path) -> None:
    """Write the root and config.json that runc and crun take."""
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "rootfs/bin/busybox")
    for name in ("true", "sleep"):
        (directory / "rootfs/bin" / name).symlink_to("busybox")
    kinds = ("pid", "mount", "network", "ipc", "uts")
    spec = default_spec(["true"], namespaces=kinds) | {"ociVersion": "1.0.2", "root": {"path": "rootfs"}}
    spec["linux"]["seccomp"] = default_seccomp()
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
    (directory / "config.json").write_text(json.dumps(spec))


def peers(directory: Path) -> dict[str, list[str]]:
    """Return how to run the bundle with what is installed; `N` stands for the container's name."""
    found: dict[str, list[str]] = {}
    if shutil.which("runc"):
        found["runc"] = ["runc", "run", "--bundle", str(directory), "N"]
    if shutil.which("crun"):
        crun = ["crun", "run", "--bundle", str(directory), "N"]
        if Path("/sys/fs/cgroup/unified").exists():
            crun.insert(1, "--cgroup-manager=disabled")
        found["crun"] = crun
    return found


def peer_time(name: str, argv: list[str], number: int) -> float:
    """Run it once; crun's private mounts are made before the clock starts."""
    argv = [f"{GROUP}{number}" if word == "N" else word for word in argv]
    if name != "crun" or "--cgroup-manager=disabled" not in argv:
        return command(argv)
    timer = (
        "import subprocess, sys, time; t = time.perf_counter();"
        "d = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, capture_output=True);"
        "print(time.perf_counter() - t); sys.stderr.buffer.write(d.stderr); sys.exit(d.returncode)"
    )
    script = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-I", "-S", "-c", timer, *argv],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"crun: {done.stderr.decode()}")
    return float(done.stdout)


async def timed(work: Any) -> float:
    began = perf_counter()
    await work
    return perf_counter() - began


async def main(count: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="kbench-"))
    bundle(directory)
    zygote = await Zygote.start(directory / "run")
    bench = Bench(directory, zygote)
    shim = await bench.sandbox()
    in_sandbox = Row("container start to end, sandbox standing, runtime only", "at most crun")
    with_overlay = Row("the same on an overlay root", "at most crun")
    whole = Row("the same with a sandbox of its own", "at most crun")
    for number in range(count + 3):
        times = [
            (in_sandbox, "kestrel", await timed(bench.container(shim))),
            (with_overlay, "kestrel", await timed(bench.container(shim, overlay=True))),
            (whole, "kestrel", await timed(bench.whole())),
        ]
        for name, argv in peers(directory).items():
            took = await asyncio.to_thread(peer_time, name, argv, number)
            times += [(row, name, took) for row in (in_sandbox, with_overlay, whole)]
        for row, name, took in times if number >= 3 else ():
            row.times.setdefault(name, []).append(took)
    rows = [in_sandbox, with_overlay, whole, await exec_row(bench, shim, count), await memory_row(bench)]
    await shim.shutdown()
    await zygote.close()
    cgroups.destroy(GROUP)
    shutil.rmtree(directory)
    print(machine())
    print(table(rows))


async def exec_row(bench: Bench, shim: Shim, count: int) -> Row:
    """Exec in a running container, to its end, as a probe does."""
    row = Row("exec inside the daemon, to its end", "8 ms")
    await shim.create("long", bench.spec("sleep", "600"), None, cgroup=f"{GROUP}/long")
    await shim.start("long")
    for number in range(count + 3):
        took = await timed(shim.exec_sync("long", {"args": ["true"]}))
        if number >= 3:
            row.times.setdefault("kestrel", []).append(took)
    return row


async def memory_row(bench: Bench) -> Row:
    """Memory of a shim with one container, when there are twenty."""
    row = Row(f"memory of a shim (PSS, {SHIMS} alive)", "1 MB", unit="MB")
    shims = [await bench.sandbox() for _ in range(SHIMS)]
    for number, shim in enumerate(shims):
        await shim.create("c", bench.spec("sleep", "600"), None, cgroup=f"{GROUP}/m{number}")
        await shim.start("c")
    row.times["kestrel"] = [memory_pss(shim.pid) for shim in shims]
    for shim in shims:
        await shim.shutdown()
    return row


if __name__ == "__main__":
    if os.geteuid():
        raise SystemExit("needs root")
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
