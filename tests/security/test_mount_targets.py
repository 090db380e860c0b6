"""Where mounts and the terminal land while somebody swaps the names on the way: races for the runtime's path look-ups.

An accomplice in another container shares a volume with the victim and exchanges a directory with a symbolic link, as
fast as it can. Whatever the runtime then makes of it, each mount that was asked for is in the victim's own root, and
nothing of the host's is: a mount that has landed outside is not in the victim's table of mounts.
"""

import os
import socket
import stat
import threading
import time
from pathlib import Path

import pytest

from kestrel.testing.runtimes import Bundle, Runtime, until

pytestmark = pytest.mark.root

RACES = "CVE-2021-30465, CVE-2024-45310, CVE-2026-42306: mounts raced by symbolic links"
CONSOLE = "CVE-2025-52565: the terminal's path swapped"

FLIP = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
renameat2, EXCHANGE = 316, 2
os.chdir("/vol")
open("/ready", "w").close()
while not os.path.exists("/stop"):
    for _ in range(1000):
        libc.syscall(renameat2, -100, b"{a}", -100, b"{b}", EXCHANGE)
"""


@pytest.fixture
def volume(bundle: Bundle, second: Bundle) -> Path:
    """A volume that the victim and its accomplice share."""
    place = bundle.home / "volume"
    place.mkdir()
    for each in (bundle, second):
        each.bind(place, "/vol")
    return place


def race(runtime: Runtime, second: Bundle, a: str, b: str) -> None:
    """Have the accomplice begin to exchange two names of the volume."""
    runtime.start(second.python(FLIP.format(a=a, b=b)))
    until((second.rootfs / "ready").exists)


@pytest.mark.threat(7, RACES)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the accomplice knows x86_64's number of renameat2")
@pytest.mark.parametrize("what", ["tmpfs", "directory", "file"])
def test_no_mount_lands_outside_of_the_root(
    runtime: Runtime, bundle: Bundle, second: Bundle, volume: Path, outside: Path, seconds: float, what: str
) -> None:
    (volume / "a/b").mkdir(parents=True)
    (volume / "link").symlink_to(outside)
    (outside / "b").mkdir()
    source = bundle.home / "source"
    source.mkdir()
    (source / "file").touch()
    destination = "/vol/a/b/new" if what == "file" else "/vol/a/b"
    if what == "tmpfs":
        bundle.spec["mounts"].append({"destination": destination, "type": "tmpfs", "source": "ktest-mine"})
    else:
        bundle.bind(source if what == "directory" else source / "file", destination)
    race(runtime, second, "a", "link")
    bundle.shell("cat /proc/self/mountinfo; [ -e /vol/link/secret ] && echo escaped; true")
    mark = "ktest-mine" if what == "tmpfs" else str(source)
    made, due = 0, time.monotonic() + seconds
    while time.monotonic() < due:
        answer = runtime.run(bundle)
        if answer.code == 0:
            made += 1
            assert mark in answer.out, "the mount is not in the container"
            assert "escaped" not in answer.out
        assert sorted(os.listdir(outside)) == ["b", "secret"], "something was made on the host"
        assert not os.listdir(outside / "b"), "something was made on the host"
    (second.rootfs / "stop").touch()
    assert made or answer.err


@pytest.mark.threat(7, RACES)
def test_a_missing_target_is_not_made_outside_through_a_link(runtime: Runtime, bundle: Bundle, outside: Path) -> None:
    for name in ("absolute", "climbing"):
        (bundle.rootfs / name).symlink_to(f"../../../../../../../..{outside}" if name == "climbing" else outside)
        bundle.bind(outside, f"/{name}/made/here")
        bundle.bind(outside / "secret", f"/{name}/file")
    runtime.run(bundle.shell("true"))
    assert os.listdir(outside) == ["secret"]


@pytest.mark.threat(7, RACES)
def test_dots_in_a_destination_do_not_lead_out(runtime: Runtime, bundle: Bundle, outside: Path) -> None:
    (outside / "target").mkdir()
    bundle.bind(bundle.rootfs / "etc", f"../../../../../../../..{outside}/target")
    bundle.bind(bundle.rootfs / "etc", f"/tmp/../../../../../../..{outside}/made")
    runtime.run(bundle.shell("true"))
    assert sorted(os.listdir(outside)) == ["secret", "target"]
    assert not os.listdir(outside / "target")


@pytest.mark.threat(7, RACES)
def test_a_root_that_is_a_link_is_looked_up_once(runtime: Runtime, bundle: Bundle, second: Bundle) -> None:
    """The bundle is the caller's; but what is mounted, masked and entered must be one and the same directory."""
    (bundle.home / "link").symlink_to("rootfs")
    bundle.spec["root"]["path"] = "link"
    (second.rootfs / "etc/other").touch()
    stop = threading.Event()

    def flip() -> None:
        names = [bundle.rootfs, second.rootfs]
        while not stop.is_set():
            names.reverse()
            (bundle.home / "new").symlink_to(names[0])
            (bundle.home / "new").rename(bundle.home / "link")

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        for _ in range(6):
            answer = runtime.run(bundle.shell("stat -c %t:%T /proc/interrupts; cat /proc/self/mountinfo; pwd; echo $$"))
            if answer.code == 0:
                assert answer.out.startswith("1:3\n")
                assert answer.out.endswith("/\n1\n")
                assert " /proc " in answer.out
    finally:
        stop.set()
        flipper.join()


# --- the terminal ---------------------------------------------------------------------------------------------------


class Console:
    """A console socket, as conmon and containerd have one: it receives terminals."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._socket.settimeout(10)

    def terminal(self) -> int:
        """Return the next one; callers that had second thoughts are passed over."""
        while True:
            peer, _ = self._socket.accept()
            with peer:
                _, descriptors, _, _ = socket.recv_fds(peer, 64, 1)
            if descriptors:
                return descriptors[0]

    def close(self) -> None:
        self._socket.close()
        self.path.unlink()


@pytest.mark.threat(5, CONSOLE)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the accomplice knows x86_64's number of renameat2")
def test_the_console_is_the_terminal_whoever_swaps_its_name(
    runtime: Runtime, bundle: Bundle, second: Bundle, volume: Path, seconds: float
) -> None:
    """/dev is a volume: pts, below which the terminal has a name, is exchanged with a directory of links."""
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/vol")
    bundle.bind(volume, "/dev")
    devpts = {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["newinstance", "ptmxmode=0666"],
    }
    bundle.spec["mounts"].append(devpts)
    (volume / "pts").mkdir()
    (volume / "ptmx").symlink_to("pts/ptmx")
    (volume / "console").touch()
    os.mknod(volume / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (volume / "evil").mkdir()
    for number in range(8):
        (volume / f"evil/{number}").symlink_to("/proc/sys/kernel/hostname")
    (volume / "evil/ptmx").symlink_to("/dev/ptmx")
    race(runtime, second, "pts", "evil")
    bundle.spec["process"]["terminal"] = True
    bundle.shell("stat -c %F /dev/console >/out")
    console = Console(bundle.home / "console.sock")
    try:
        due, opened = time.monotonic() + seconds, 0
        while time.monotonic() < due or opened < 6:
            (bundle.rootfs / "out").unlink(missing_ok=True)
            container = runtime.claim()
            words = ("create", "--bundle", str(bundle.write()), "--console-socket", str(console.path), container)
            if runtime(*words).code == 0:
                terminal = console.terminal()
                opened += 1
                assert os.isatty(terminal)
                if runtime("start", container).code == 0:
                    runtime.ended(container)
                    seen = bundle.rootfs / "out"
                    assert not seen.exists() or seen.read_text() in ("character special file\n", "")
                os.close(terminal)
            runtime("delete", "--force", container)
    finally:
        console.close()
        (second.rootfs / "stop").touch()


@pytest.mark.threat(5, CONSOLE)
def test_a_terminal_s_other_end_is_not_opened_by_a_path_of_the_image(
    runtime: Runtime, bundle: Bundle, outside: Path
) -> None:
    """The image has a console and a ptmx of its own, which lead elsewhere."""
    bundle.without_mounts("/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    bundle.spec["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts"})
    (bundle.rootfs / "dev/ptmx").symlink_to("/proc/self/fd/0")
    (bundle.rootfs / "dev/console").symlink_to(f"../../../../../../..{outside}/secret")
    bundle.spec["process"]["terminal"] = True
    console = Console(bundle.home / "console.sock")
    try:
        words = ("--console-socket", str(console.path))
        container = runtime.claim()
        if runtime("create", "--bundle", str(bundle.shell("tty").write()), *words, container).code == 0:
            terminal = console.terminal()
            runtime("start", container)
            assert os.isatty(terminal)
            os.close(terminal)
    finally:
        console.close()
    assert (outside / "secret").read_text() == "the host's secret\n"
    assert not os.path.ismount(outside / "secret")
