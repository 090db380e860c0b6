"""Measure Kestrel beside its peers and print one table.

    python -m benchmarks [--quick] [--json FILE] [SUBJECT...]

Everything runs in network, mount and process namespaces of its own below a scratch directory: when this ends, however
it ends, the kernel ends all that was started, and what is left are files and control groups, which are removed.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import builds, containers, images, platform, pods, registry, runtime, soak
from benchmarks.bed import Bed, Names, remove, settings
from benchmarks.measure import Row, busy, machine, table
from kestrel.testing.groups import remove_group

SUBJECTS: dict[str, Callable[[Bed], Iterator[Row]]] = {
    "ready": platform.ready,
    "idle": platform.idle,
    "start": runtime.start,
    "probe": runtime.exec_,
    "run": containers.run,
    "exec": containers.exec_,
    "memory": containers.memory,
    "pull": images.pull,
    "rebuild": builds.rebuild,
    "context": builds.context,
    "stages": builds.stages,
    "export": builds.export,
    "pod": pods.running,
    "manifest": images.manifests,
    "blobs": registry.blobs,
    "tags": registry.tags,
    "million": registry.million,
    "crowd": pods.crowd,
    "used": platform.used,
    "soak": soak.soak,
}
"""In the order of the table. `idle` comes before what fills the daemon, `used` after it; `soak` has to be asked for."""
DISK = 24 << 30  # bytes of the scratch disk, of which only what is written takes room
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")


def main() -> int:
    wanted = _arguments()
    if os.geteuid():
        raise SystemExit("error: the benchmarks need root")
    if wanted.inside:
        child = os.fork()
        return _reap(child) if child else _measure(Path(wanted.inside), wanted)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    token = secrets.token_hex(3)
    directory = Path(f"/var/tmp/kestrel-bench-{token}")
    directory.mkdir(mode=0o700)
    # The kernel ends `unshare` with us, and by --kill-child everything that runs inside, even after kill -9.
    argv = [
        "setpriv",
        "--pdeathsig=KILL",
        "unshare",
        *NAMESPACES,
        sys.executable,
        "-m",
        "benchmarks",
        f"--inside={directory}",
        *sys.argv[1:],
    ]
    inner = subprocess.Popen(argv)
    try:
        return inner.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        inner.kill()
        inner.wait()
        _clear_away(directory, Names(token))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Kestrel beside its peers, as ratios of medians.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"what to measure: {', '.join(SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument("--json", metavar="FILE", help="write every single measurement too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    for name in wanted.subjects:
        if name not in SUBJECTS:
            parser.error(f"unknown subject {name!r}; there are {', '.join(SUBJECTS)}")
    return wanted


def _reap(child: int) -> int:
    """Be the first process of its namespace: inherit every orphan and let it go, until `child` ends."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _measure(directory: Path, wanted: argparse.Namespace) -> int:
    """Be the process inside the namespaces."""
    _own_places()
    disk = _own_disk(directory)
    names = Names(directory.name.rpartition("-")[2])
    os.environ.update(settings(disk, names.kestrel))
    rows: list[Row] = []
    failed = 0
    load: list[float] = []
    began = time.monotonic()
    with Bed(disk, names, quick=wanted.quick) as bed:
        for name in wanted.subjects or [name for name in SUBJECTS if name != "soak"]:
            load.append(busy())
            try:
                for row in SUBJECTS[name](bed):
                    rows.append(row)
                    print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
            except Exception as error:  # noqa: BLE001 - one subject's failure must not cost the others their numbers
                failed += 1
                traceback.print_exc()
                rows.append(Row(name, note=str(error).splitlines()[0][:200]))
    spent = (time.monotonic() - began) / 60
    noise = f"others kept {min(load):.0f} to {max(load):.0f} % of it busy between subjects"
    print(f"{machine()}; {noise}; {spent:.0f} min{', quick' if wanted.quick else ''}\n{_versions()}\n\n{table(rows)}")
    if wanted.json:
        Path(wanted.json).write_text(json.dumps(_plain(rows, load), indent=1))
    return 1 if failed else 0


def _own_places() -> None:
    """Loopback up, and an empty /run and /var/lib/cni: sockets and locks of the host's own programs are not ours."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)


def _own_disk(directory: Path) -> Path:
    """Mount a new ext4, as mkfs makes it, from a sparse file, and return its root.

    Two measurements are only then comparable: without a journal, as on some virtual machines, ext4 does not give out
    an inode again for minutes after its file was removed, and looks for another longer and longer (recently_deleted in
    the kernel's fs/ext4/ialloc.c). Whoever comes after a removal of 10,000 files pays seconds for it.
    """
    file, disk = directory / "disk.ext4", directory / "disk"
    disk.mkdir()
    with open(file, "wb") as sparse:
        sparse.truncate(DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", file], check=True)
    subprocess.run(["mount", "-o", "loop", file, disk], check=True)
    return disk


def _versions() -> str:
    commands = (["runc", "--version"], ["crun", "--version"], ["podman", "--version"], ["dockerd", "--version"])
    found = [subprocess.run(argv, capture_output=True, text=True) for argv in commands if shutil.which(argv[0])]
    return "; ".join(done.stdout.splitlines()[0] for done in found)


def _plain(rows: Sequence[Row], load: Sequence[float]) -> dict[str, object]:
    return {
        "machine": machine(),
        "busy_percent": load,
        "rows": [
            {
                "name": row.name,
                "unit": {"ms": "s", "MB": "bytes"}.get(row.unit, row.unit),
                "budget": row.budget,
                "measurements": row.times,
                "note": row.note,
            }
            for row in rows
        ],
    }


def _clear_away(directory: Path, names: Names) -> None:
    for group in names.all():
        if not remove_group(group):
            print(f"the control group {group} stays, since somebody lives in it", file=sys.stderr)
    remove(directory)


if __name__ == "__main__":
    sys.exit(main())
