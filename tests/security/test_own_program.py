"""The runtime's own program and processes, seen and reached for from inside a container."""

import hashlib
import os
from pathlib import Path

import pytest

from kestrel.testing.runtimes import Bundle, Runtime, until

pytestmark = pytest.mark.root

OVERWRITE = """
import os, time
own = {(os.stat(p).st_dev, os.stat(p).st_ino) for p in ("/proc/self/exe", "/bin/busybox")}
def overwrite(path):
    # a file that is being executed cannot be written to (ETXTBSY): try until it is not
    due = time.monotonic() + 1
    while time.monotonic() < due:
        try:
            fd = os.open(path, os.O_WRONLY)
        except OSError as error:
            if error.errno != 26:
                return str(error)
            continue
        try:
            os.write(fd, b"#!/bin/sh\\n")
        except OSError as error:
            return str(error)
        return "overwritten"
    return "busy"
"""

ENTRYPOINT = f"""{OVERWRITE}
fd = os.open("/proc/self/exe", os.O_RDONLY)
if os.fork() == 0:
    time.sleep(0.1)
    open("/found", "w").write(overwrite(f"/proc/self/fd/{{fd}}"))
    os._exit(0)
os.execv("/bin/sh", ["sh", "-c", "until [ -s /found ]; do sleep 0.1; done"])
"""

LURKER = f"""{OVERWRITE}
open("/ready", "w").close()
while not os.path.exists("/stop"):
    for pid in os.listdir("/proc"):
        try:
            fd = os.open(f"/proc/{{pid}}/exe", os.O_RDONLY)
        except OSError:
            continue
        info = os.fstat(fd)
        if (info.st_dev, info.st_ino) not in own:
            open("/found", "a").write(overwrite(f"/proc/self/fd/{{fd}}") + chr(10))
        os.close(fd)
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.threat(1, "CVE-2019-5736: /proc/self/exe")
def test_a_container_that_is_its_runtime_s_program_cannot_overwrite_it(runtime: Runtime, bundle: Bundle) -> None:
    before = digest(runtime.program)
    bundle.python(ENTRYPOINT)
    bundle.spec["process"]["args"][0] = "/proc/self/exe"
    runtime.run(bundle)
    assert digest(runtime.program) == before


@pytest.mark.threat(1, "CVE-2019-5736: /proc/self/exe")
def test_a_container_cannot_overwrite_the_program_that_enters_it(runtime: Runtime, bundle: Bundle) -> None:
    before = digest(runtime.program)
    trap = bundle.rootfs / "bin/trap"
    trap.write_text("#!/proc/self/exe -IS\nimport time\ntime.sleep(0.2)\n")
    trap.chmod(0o755)
    container = runtime.start(bundle.python(LURKER))
    until((bundle.rootfs / "ready").exists)
    for _ in range(3):  # also when its caller's environment says that it is safe already
        runtime(
            "exec",
            container,
            "/bin/trap",
            env={**os.environ, "_KESTREL_SEALED": "1", "_LIBCONTAINER_CLONED_BINARY": "1"},
        )
    (bundle.rootfs / "stop").touch()
    runtime.ended(container)
    assert digest(runtime.program) == before
    found = bundle.rootfs / "found"
    assert not found.exists() or "overwritten" not in found.read_text()


PEEP = """
import os
own = {(os.stat(p).st_dev, os.stat(p).st_ino) for p in ("/proc/self/exe", "/bin/busybox")}
root = os.stat("/")
open("/ready", "w").close()
seen = set()
while not os.path.exists("/stop"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == "1":
            continue
        try:
            exe = os.stat(f"/proc/{pid}/exe")
            if (exe.st_dev, exe.st_ino) not in own:
                seen.add(f"exe {os.readlink(f'/proc/{pid}/exe')}")
        except OSError:
            continue
        for name in ("root", "cwd"):
            try:
                there = os.stat(f"/proc/{pid}/{name}/bin/busybox")
                if (there.st_dev, there.st_ino) not in own and os.path.exists(f"/proc/{pid}/{name}/proc"):
                    seen.add(f"{name} of the host")
            except OSError:
                pass
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if int(fd) > 2 and link.startswith("/"):
                    seen.add(f"descriptor {link}")
        except OSError:
            pass
open("/seen", "w").write("\\n".join(sorted(seen)))
"""


@pytest.mark.threat(3, "CVE-2016-9962: looking into a process that enters")
def test_a_process_that_enters_cannot_be_looked_into_before_it_is_the_user_s(runtime: Runtime, bundle: Bundle) -> None:
    container = runtime.start(bundle.python(PEEP))
    until((bundle.rootfs / "ready").exists)
    for _ in range(8):
        runtime.ok("exec", container, "/bin/busybox", "true")
    (bundle.rootfs / "stop").touch()
    runtime.ended(container)
    assert (bundle.rootfs / "seen").read_text() == ""


TRACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000
own = os.stat("/proc/self/exe").st_ino, os.stat("/bin/busybox").st_ino
open("/ready", "w").close()
while not os.path.exists("/stop"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid == "1" or libc.ptrace(SEIZE, int(pid), None, None):
            continue
        libc.ptrace(INTERRUPT, int(pid), None, None)
        os.waitpid(int(pid), WALL)
        try:
            if os.stat(f"/proc/{pid}/exe").st_ino not in own:
                open("/seized", "a").write(os.readlink(f"/proc/{pid}/exe"))
        except OSError:
            pass
        libc.ptrace(DETACH, int(pid), None, None)
"""


@pytest.mark.threat(3, "CVE-2016-9962: looking into a process that enters")
def test_a_process_that_enters_cannot_be_traced_before_it_is_the_user_s(runtime: Runtime, bundle: Bundle) -> None:
    del bundle.spec["linux"]["seccomp"]
    container = runtime.start(bundle.python(TRACE))
    until((bundle.rootfs / "ready").exists)
    for _ in range(8):
        runtime("exec", container, "/bin/busybox", "true")
    (bundle.rootfs / "stop").touch()
    runtime.ended(container)
    assert not (bundle.rootfs / "seized").exists()


@pytest.mark.threat(2, "CVE-2024-21626: leaked descriptors")
@pytest.mark.parametrize("how", ["run", "exec"])
def test_no_working_directory_leads_out_through_a_descriptor(
    runtime: Runtime, bundle: Bundle, outside: Path, seconds: float, how: str
) -> None:
    most = 64 if seconds > 5 else 12
    # Whatever the runtime has open: from a directory outside, enough ".." lead to the host's root.
    look = f"cat ../../../../../../../../..{outside}/secret; test -e /proc/self/cwd/proc/self || pwd -P"
    container = runtime.start(bundle.arguments("sleep", "600")) if how == "exec" else ""
    directory = os.open(outside, os.O_RDONLY)  # as a careless caller has it open
    try:
        for number in (*range(3, most), directory):
            cwd = f"/proc/self/fd/{number}"
            if container:
                answer = runtime("exec", "--cwd", cwd, container, "sh", "-c", look, descriptors=[directory])
            else:
                bundle.spec["process"]["cwd"] = cwd
                answer = runtime.run(bundle.shell(look), descriptors=[directory])
            assert "secret" not in answer.out, f"through {cwd}"
            assert answer.code != 0, f"{cwd} was entered"
    finally:
        os.close(directory)


OPEN = """
import os
for fd in os.listdir("/proc/self/fd"):
    try:
        print(fd, os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        pass  # that was the list itself
"""


@pytest.mark.threat(2, "CVE-2024-21626: leaked descriptors")
@pytest.mark.parametrize("how", ["run", "exec"])
def test_only_the_standard_streams_are_open_inside(runtime: Runtime, bundle: Bundle, outside: Path, how: str) -> None:
    look = OPEN
    opened = [os.open(outside / "secret", os.O_RDONLY), os.open(outside, os.O_RDONLY), os.memfd_create("x", 0)]
    high = os.dup2(opened[0], 200)
    try:
        if how == "exec":
            container = runtime.start(bundle.with_python().arguments("sleep", "600"), descriptors=[*opened, high])
            first = runtime.ok("exec", container, "ls", "/proc/1/fd")
            assert first.split() == ["0", "1", "2"]
            words = ("exec", container, "/usr/bin/python3", "-IS", "-c", look)
            said = runtime.ok(*words, descriptors=[*opened, high])
        else:
            answer = runtime.run(bundle.python(look), descriptors=[*opened, high])
            assert answer.code == 0, answer.err
            said = answer.out
    finally:
        for fd in [*opened, high]:
            os.close(fd)
    assert sorted(int(line.split()[0]) for line in said.splitlines()) == [0, 1, 2]
