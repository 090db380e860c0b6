"""The low-level runtime alone, beside runc and crun: start to end of `true`, and exec as the daemon does it.

The same bundle for all: busybox, the default spec with its seccomp profile, namespaces of its own. Kestrel's time is
taken by its client and covers create, start, the end with its exit file synced to disk, and delete, including the
cgroup. Three forms: in a sandbox that stands already (as a Pod's second container), the same on an overlay root, and
with a sandbox of its own, whose network namespace the others make too. crun refuses hybrid cgroups; where these are
mounted it runs without any, in a private mount namespace, and its time is so much the better for it.
"""

import asyncio
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.bed import Bed
from benchmarks.measure import BEST_PEER, Row, command
from kestrel.engine.shims import SandboxRequest, Shim, Zygote
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_seccomp, default_spec

WARMUP = 3


class Bench:
    """The bundle, and Kestrel's side."""

    def __init__(self, directory: Path, zygote: Zygote, group: str) -> None:
        self.directory = directory
        self.group = group
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
            SandboxRequest(id=place.name, directory=str(place), hostname="bench", cgroup=f"{self.group}/{place.name}")
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
        await shim.create(name, self.spec("true"), rootfs, cgroup=f"{self.group}/{name}")
        await shim.start(name)
        await shim.wait(name)
        await shim.delete(name)

    async def whole(self) -> None:
        shim = await self.sandbox()
        await self.container(shim)
        await shim.shutdown()


def bundle(directory: Path, group: str) -> None:
    """Write the root and config.json that runc and crun take."""
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "rootfs/bin/busybox")
    for name in ("true", "sleep"):
        (directory / "rootfs/bin" / name).symlink_to("busybox")
    kinds = ("pid", "mount", "network", "ipc", "uts")
    spec = default_spec(["true"], namespaces=kinds) | {"ociVersion": "1.0.2", "root": {"path": "rootfs"}}
    spec["linux"]["seccomp"] = default_seccomp()
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
    spec["linux"]["cgroupsPath"] = f"/{group}/bundle"
    (directory / "config.json").write_text(json.dumps(spec))


def _crun_has_cgroups() -> bool:
    return not Path("/sys/fs/cgroup/unified").exists()


def peers(directory: Path) -> dict[str, list[str]]:
    """Return how to run the bundle with what is installed; `N` stands for the container's name."""
    found: dict[str, list[str]] = {}
    if shutil.which("runc"):
        found["runc"] = ["runc", "run", "--bundle", str(directory), "N"]
    if shutil.which("crun"):
        crun = ["crun", "run", "--bundle", str(directory), "N"]
        if not _crun_has_cgroups():
            crun.insert(1, "--cgroup-manager=disabled")
        found["crun"] = crun
    return found


def in_steps(argv: list[str]) -> list[str]:
    """Return a shell's command line that does by three commands what the given one does: create, start and delete."""
    at = argv.index("run")
    runtime, given = shlex.join(argv[:at]), shlex.join(argv[at + 1 : -1])
    steps = f'{runtime} create {given} "$0" && {runtime} start "$0" && {runtime} delete --force "$0"'
    return ["sh", "-c", steps, "N"]


def once(name: str, argv: list[str], container: str) -> float:
    """Run it once; crun's private mounts are made before the clock starts."""
    argv = [container if word == "N" else word for word in argv]
    if name != "crun" or _crun_has_cgroups():
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
        raise RuntimeError(f"crun: {done.stderr.decode()}")
    return float(done.stdout)


def start(bed: Bed) -> Iterator[Row]:
    """A container from start to end, runtime only."""
    yield from asyncio.run(_start(bed))


def exec_(bed: Bed) -> Iterator[Row]:
    """Exec in a running container, to its end, as a probe does."""
    yield from asyncio.run(_exec(bed))


async def _timed(work: Awaitable[None]) -> float:
    began = perf_counter()
    await work
    return perf_counter() - began


async def _start(bed: Bed) -> list[Row]:
    directory = bed.place("bundle")
    bundle(directory, bed.names.runtime)
    note = "" if _crun_has_cgroups() else "crun without cgroups, which it refuses here"
    in_sandbox = Row("container start to end, runtime only, sandbox standing", BEST_PEER, note=note)
    with_overlay = Row("the same on an overlay root", BEST_PEER)
    whole = Row("the same with a sandbox of its own", BEST_PEER)
    cold = Row("`kestrel-runtime run`, a command like theirs", BEST_PEER)
    calls = Row("`create`, `start` and `delete` as commands, as containerd gives them", BEST_PEER)
    ours = [str(Path(sys.prefix) / "bin/kestrel-runtime"), "run", "--bundle", str(directory), "N"]
    zygote = await Zygote.start(directory / "run")
    bench = Bench(directory, zygote, bed.names.runtime)
    shim = await bench.sandbox()
    try:
        for number in range(bed.count(20) + WARMUP):
            times = [
                (in_sandbox, "kestrel", await _timed(bench.container(shim))),
                (with_overlay, "kestrel", await _timed(bench.container(shim, overlay=True))),
                (whole, "kestrel", await _timed(bench.whole())),
            ]
            for name, argv in {"kestrel": ours, **peers(directory)}.items():
                took = await asyncio.to_thread(once, name, argv, f"{bench.group}{number}")
                stand_beside = (cold,) if name == "kestrel" else (in_sandbox, with_overlay, whole, cold)
                times += [(row, name, took) for row in stand_beside]
                took = await asyncio.to_thread(once, name, in_steps(argv), f"{bench.group}{number}")
                times.append((calls, name, took))
            for row, name, took in times if number >= WARMUP else ():
                row.add(name, took)
    finally:
        await shim.shutdown()
        await zygote.close()
    return [in_sandbox, with_overlay, whole, cold, calls]


async def _exec(bed: Bed) -> list[Row]:
    directory = bed.place("bundle")
    bundle(directory, bed.names.runtime)
    row = Row("exec inside the daemon, to its end (probes, ExecSync)", 8.0)
    zygote = await Zygote.start(directory / "run")
    bench = Bench(directory, zygote, bed.names.runtime)
    shim = await bench.sandbox()
    try:
        await shim.create("long", bench.spec("sleep", "600"), None, cgroup=f"{bench.group}/long")
        await shim.start("long")
        for number in range(bed.count(30) + WARMUP):
            began = perf_counter()
            await shim.exec_sync("long", {"args": ["true"]})
            if number >= WARMUP:
                row.add("kestrel", perf_counter() - began)
    finally:
        await shim.shutdown()
        await zygote.close()
    return [row]
