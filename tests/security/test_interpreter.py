"""What an interpreted runtime could be made to do: load code out of the image, or hang in a fork."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kestrel.linux.inotify import Inotify
from kestrel.testing.runtimes import Bundle, Runtime

pytestmark = pytest.mark.root

CODE = "CVE-2019-14271, CVE-2026-41567: code out of the image"
FORKS = "an interpreter's fork hazards"
IN_OPEN = 0x20
LIBRARIES = (
    "libnss_files.so.2",
    "libnss_dns.so.2",
    "libnss_compat.so.2",
    "libc.so.6",
    "libseccomp.so.2",
    "libcrypto.so.3",
)
PROGRAMS = ("unpigz", "pigz", "xz", "gzip", "zstd", "tar", "newuidmap", "id", "getent", "python3", "iptables")


def lay_traps(root: Path) -> list[str]:
    """Put code into an image wherever somebody may look for some; returns the directories it is in."""
    files = {"etc": ("nsswitch.conf", "ld.so.preload", "ld.so.cache", "gai.conf", "locale.alias", "localtime")}
    for folder in ("usr/lib", "lib", "lib64", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
        files[folder] = LIBRARIES
    for folder in ("usr/bin", "usr/sbin", "sbin", "usr/local/bin"):
        files[folder] = PROGRAMS
    evil = "open('/pwned', 'w').close()\n"
    for entry in (*sys.path, str(Path(__file__).parents[2] / "src"), os.path.dirname(os.__file__)):
        if entry.startswith("/"):
            place = entry.strip("/")
            files[place] = tuple(f"{name}.py" for name in sorted(sys.stdlib_module_names) if name[0] != "_")
            files[f"{place}/encodings"] = ("__init__.py", "idna.py", "utf_8.py", "latin_1.py", "ascii.py")
            files[f"{place}/kestrel"] = ("__init__.py",)
    for folder, names in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (root / folder / name).write_text(evil if name.endswith(".py") else "\x7fELF evil")
            (root / folder / name).chmod(0o755)
    return sorted(files)


@contextmanager
def watched(root: Path, folders: list[str]) -> Iterator[list[str]]:
    """Note everything that anybody opens in these directories."""
    opened: list[str] = []
    watch = Inotify()
    try:
        names = {watch.add(str(root / folder), IN_OPEN): folder for folder in folders}
        watch.read()
        yield opened
        while events := watch.read():
            opened += [f"{names[event.watch]}/{event.name}" for event in events if event.name]
    finally:
        watch.close()


@pytest.fixture
def mined(bundle: Bundle) -> Bundle:
    """A bundle full of traps: only /bin has what it seems to have."""
    for name in ("lib", "lib64", "lib32", "libx32"):
        if (bundle.rootfs / name).is_symlink():
            (bundle.rootfs / name).unlink()
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    bundle.spec["process"]["env"] += ["LANG=de_DE.UTF-8", "TZ=Evil/Zone", "PYTHONPATH=/evil", "HOME=/home"]
    (bundle.rootfs / "etc/passwd").write_text("alice:x:1000:1000::/home:/bin/sh\n")
    return bundle


@pytest.mark.threat(10, CODE)
def test_nothing_of_the_image_is_opened_to_run_it(runtime: Runtime, mined: Bundle) -> None:
    folders = lay_traps(mined.rootfs)
    mined.spec["linux"]["sysctl"] = {"net.ipv4.ip_default_ttl": "65"}
    with watched(mined.rootfs, folders) as opened:
        assert runtime.run(mined.arguments("/bin/busybox", "true")).code == 0
        container = runtime.start(mined.arguments("/bin/busybox", "sleep", "600"))
        runtime.ok("exec", "--user", "1000:1000", "--env", "A=B", container, "/bin/busybox", "true")
        runtime.ok("kill", container, "KILL")
        runtime.ended(container)
        runtime.ok("delete", container)
    assert not [name for name in opened if name != "etc/passwd"]
    assert not (mined.rootfs / "pwned").exists()


@pytest.mark.threat(10, CODE)
@pytest.mark.parametrize(
    "flaw", [{"args": ["/nowhere"]}, {"args": ["nowhere"]}, {"args": ["/etc/passwd"]}, {"cwd": "/etc/passwd"},
             {"args": ["/bin/\udcff"]}, {"user": {"uid": 4_000_000_000, "gid": 1}}],
    ids=range(6),
)  # fmt: skip
def test_nothing_of_the_image_is_opened_to_explain_a_failure(
    runtime: Runtime, mined: Bundle, flaw: dict[str, object]
) -> None:
    """An error is where a lazy import hides: in a traceback, in a codec, in a table of names."""
    folders = lay_traps(mined.rootfs)
    (mined.rootfs / "bin/script").write_text("#!/usr/bin/nowhere\n")
    mined.spec["process"].update({"args": ["/bin/busybox", "true"], **flaw})
    with watched(mined.rootfs, folders) as opened:
        runtime.run(mined)
    assert not [name for name in opened if name != "etc/passwd"]
    assert not (mined.rootfs / "pwned").exists()


@pytest.mark.threat(29, FORKS)
def test_no_start_hangs_under_load(runtime: Runtime, bundle: Bundle, seconds: float) -> None:
    """Three callers at once, while something else wants the processors; a hang is a command that times out."""
    each = 334 if seconds > 5 else 7
    bundle.arguments("/bin/busybox", "true").write()
    bundle.spec["linux"].pop("cgroupsPath")
    failures: list[str] = []

    def call() -> None:
        for _ in range(each):
            answer = runtime.run(bundle, timeout=30)
            if answer.code:
                failures.append(answer.err)

    load = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    callers = [threading.Thread(target=call) for _ in range(3)]
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        load.kill()
        load.wait()
    assert failures == []


@pytest.mark.threat(29, FORKS)
def test_no_process_that_enters_hangs_under_load(runtime: Runtime, bundle: Bundle, seconds: float) -> None:
    container = runtime.start(bundle.arguments("/bin/busybox", "sleep", "600"))
    failures: list[str] = []

    def call() -> None:
        for _ in range(100 if seconds > 5 else 7):
            answer = runtime("exec", container, "/bin/busybox", "true", timeout=30)
            if answer.code:
                failures.append(answer.err)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failures == []
