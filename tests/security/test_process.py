"""Who the container's process is, what it may do, and what it is given: identities, rights, system calls."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kestrel.oci.runtime_defaults import default_seccomp
from kestrel.testing.instance import Instance
from kestrel.testing.runtimes import Bundle, Runtime

pytestmark = pytest.mark.root

INHERITABLE = "CVE-2022-24769, CVE-2022-29162, CVE-2022-27650: inheritable capabilities"
USERS = "CVE-2026-30892, CVE-2016-3697, CVE-2024-40635: users that are not what they seem"
GROUPS = "CVE-2022-2989, CVE-2022-2990: supplementary groups"


def status(text: str) -> dict[str, str]:
    """Return /proc/PID/status by name."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


# --- capabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.threat(18, INHERITABLE)
@pytest.mark.parametrize("how", [(), ("--cap", "CAP_NET_ADMIN"), ("--user", "1000:1000"), ("--process",)])
def test_no_capability_is_inheritable(runtime: Runtime, bundle: Bundle, tmp_path: Path, how: tuple[str, ...]) -> None:
    first = status(runtime.run(bundle.shell("cat /proc/self/status")).out)
    assert (first["CapInh"], first["CapAmb"]) == ("0" * 16, "0" * 16)
    container = runtime.start(bundle.arguments("sleep", "600"))
    command = ("cat", "/proc/self/status")
    if how == ("--process",):
        (tmp_path / "process.json").write_text(json.dumps({**bundle.spec["process"], "args": command}))
        said = runtime.ok("exec", "--process", str(tmp_path / "process.json"), container)
    else:
        said = runtime.ok("exec", *how, container, *command)
    further = status(said)
    assert (further["CapInh"], further["CapAmb"]) == ("0" * 16, "0" * 16)


def test_a_process_that_enters_has_no_more_rights_than_the_first(runtime: Runtime, bundle: Bundle) -> None:
    bundle.spec["process"]["noNewPrivileges"] = True
    container = runtime.start(bundle.arguments("sleep", "600"))
    said = runtime.ok("exec", container, "cat", "/proc/1/status", "/proc/self/status")
    at = said.index("Name:", 1)
    first, further = status(said[:at]), status(said[at:])
    for name in ("CapPrm", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs"):
        assert first[name] == further[name], name
    assert (further["Seccomp"], further["NoNewPrivs"]) == ("2", "1")


# --- users ----------------------------------------------------------------------------------------------------------


@pytest.mark.threat(19, USERS)
@pytest.mark.parametrize(
    "user",
    ["4294967296", "4294967295", "1000:4294967296", "18446744073709551616", "-1", "1000:-1", "0x0", "1e3", "0 ", "+0",
     "1000:", ":", ":0", "1000:0:0", "name", "\u0660"],
)  # fmt: skip
def test_a_user_that_is_no_number_is_nobody_s(runtime: Runtime, bundle: Bundle, user: str) -> None:
    (bundle.rootfs / "etc/passwd").write_text(f"root:x:0:0::/:\n{user}:x:0:0::/:\n1000:x:0:0::/:\n")
    bundle.spec["process"]["user"] = {"uid": 1, "gid": 1}
    container = runtime.start(bundle.arguments("sleep", "600"))
    answer = runtime("exec", "--user", user, container, "id")
    assert answer.code != 0 or "=0" not in answer.out, answer.out
    assert answer.code != 0, answer.out


@pytest.mark.threat(19, USERS)
def test_a_number_is_not_looked_up_as_a_name(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/:\n")
    container = runtime.start(bundle.arguments("sleep", "600"))
    assert (
        status(runtime.ok("exec", "--user", "1000", container, "cat", "/proc/self/status"))["Uid"]
        == "1000\t" * 3 + "1000"
    )


@pytest.mark.threat(19, USERS)
@pytest.mark.parametrize("member", ["uid", "gid", "additionalGids"])
@pytest.mark.parametrize("value", [2**32, 2**32 - 1, 2**64, -1, 0.5, 1e3, "0", True, None, {}, 2**4000])
def test_an_id_in_a_bundle_that_is_no_number_is_refused(
    runtime: Runtime, bundle: Bundle, member: str, value: Any
) -> None:
    bundle.spec["process"]["user"] = {"uid": 1, "gid": 1, member: [value] if member == "additionalGids" else value}
    answer = runtime.run(bundle.shell("cat /proc/self/status"))
    if value is None and answer.code == 0:  # to JSON's readers, null is often as good as absent
        return
    assert answer.code != 0, answer.out


@pytest.mark.threat(24, GROUPS)
@pytest.mark.parametrize("how", ["run", "exec"])
@pytest.mark.parametrize("further", [[], [5], [1000, 5]])
def test_groups_are_those_of_the_spec_and_not_of_whoever_calls_the_runtime(
    runtime: Runtime, bundle: Bundle, how: str, further: list[int]
) -> None:
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": further}
    if how == "run":
        said = runtime.run(bundle.shell("cat /proc/self/status"), groups=[0, 4242]).out
    else:
        container = runtime.start(bundle.arguments("sleep", "600"), groups=[0, 4242])
        said = runtime.ok("exec", container, "cat", "/proc/self/status", groups=[0, 4242])
    found = set(map(int, status(said)["Groups"].split()))
    assert found - {1000} == set(further) - {1000}
    assert 1000 not in further or 1000 in found


@pytest.mark.threat(24, GROUPS, against="kestrel")
@pytest.mark.parametrize("how", ["run", "exec", "build"])
def test_the_primary_group_is_a_supplementary_one_as_well(kestrel: Instance, how: str) -> None:
    """Without it, a set-group-ID program would take away what a file's mode denies that group."""
    look = "cat /proc/self/status"
    if how == "run":
        said = kestrel("run", "--rm", "-u", "1000:1000", "box", "sh", "-c", look).out
    elif how == "exec":
        name = kestrel("run", "-d", "-u", "1000:1000", "box", "sleep", "600").out.strip()
        said = kestrel("exec", name, "sh", "-c", look).out
    else:
        kestrel.build("groups:1", f"FROM box\nWORKDIR /w\nRUN chmod 777 .\nUSER 1000:1000\nRUN {look} >got\n")
        said = kestrel("run", "--rm", "groups:1", "cat", "/w/got").out
    assert status(said)["Groups"].split() == ["1000"]


# --- system calls ---------------------------------------------------------------------------------------------------

SOCKET = """
import errno, socket
for family in (38, 40):
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(family, kind)
            print("opened")
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


@pytest.mark.threat(22, "CVE-2026-31431: AF_ALG")
def test_sockets_of_the_kernel_s_cryptography_are_refused(runtime: Runtime, bundle: Bundle) -> None:
    answer = runtime.run(bundle.python(SOCKET))
    assert answer.out.split() == ["EPERM"] * 6, answer.err


I386 = """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
MAP_32BIT = 0x40
page = libc.mmap(None, 4096, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT, -1, 0)
def call(number, ebx, ecx, edx):
    # push rbx; mov eax/ebx/ecx/edx; int 0x80; pop rbx; ret
    words = [b"\\x53\\xb8", number, b"\\xbb", ebx, b"\\xb9", ecx, b"\\xba", edx, b"\\xcd\\x80\\x5b\\xc3"]
    code = b"".join(w if isinstance(w, bytes) else w.to_bytes(4, "little") for w in words)
    ctypes.memmove(page, code, len(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(page)()
print(call(20, 0, 0, 0) > 0, end=" ")  # getpid
print(call(359, 38, 5, 0), end=" ")  # socket
ctypes.memmove(page + 2048, (ctypes.c_int * 3)(38, 5, 0), 12)
print(call(102, 1, page + 2048, 0))  # socketcall
"""


def kernel_has_af_alg() -> bool:
    try:
        socket.socket(38, socket.SOCK_SEQPACKET).close()
    except OSError:
        return False
    return True


@pytest.mark.threat(22, "CVE-2026-31431: AF_ALG")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="32-bit system calls of x86")
def test_a_32_bit_program_has_no_way_to_them_either(runtime: Runtime, bundle: Bundle) -> None:
    """What socketcall(2) is asked for no filter can see: where a kernel has AF_ALG, that is a security module's."""
    answer = runtime.run(bundle.python(I386))
    assert answer.code == 0, answer.err
    native, direct, through_socketcall = answer.out.split()
    if native == "False":
        pytest.skip("this kernel runs no 32-bit programs")
    assert int(direct) == -1
    if kernel_has_af_alg() and int(through_socketcall) >= 0:
        pytest.skip("AF_ALG through a 32-bit socketcall: seccomp cannot see it, and no AppArmor is in force")
    assert int(through_socketcall) < 0


CALLS = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for number in map(int, "{numbers}".split()):
    ctypes.set_errno(0)
    libc.syscall(number, -1, 0, 0, 0, 0, 0)
    print(errno.errorcode.get(ctypes.get_errno(), "OK"))
"""


@pytest.mark.threat(28, "system calls newer than the profile")
@pytest.mark.parametrize("machine", ["x86_64"])
@pytest.mark.parametrize("ours", [True, False], ids=["our profile", "a profile that refuses with EPERM"])
def test_a_system_call_that_the_profile_does_not_know_does_not_exist(
    runtime: Runtime, bundle: Bundle, machine: str, ours: bool
) -> None:
    """A library that is told EPERM gives up; told ENOSYS, it does what it did before the call existed."""
    if os.uname().machine != machine:
        pytest.skip(f"numbers of {machine}")
    profile = default_seccomp()
    numbers = "1000 600"
    if not ours:
        # As container engines' profiles are: what is not named is refused, the newest named is faccessat2 (439).
        del profile["defaultErrnoRet"]
        known = {"openat2", "faccessat2", "clone", "execve"}
        newer = (
            "close_range process_madvise epoll_pwait2 memfd_secret process_mrelease futex_waitv cachestat fchmodat2 "
            "map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount mseal mount_setattr "
            "open_tree_attr set_mempolicy_home_node quotactl_fd landlock_create_ruleset landlock_add_rule "
            "landlock_restrict_self setxattrat getxattrat listxattrat removexattrat uretprobe"
        ).split()
        assert not known & set(newer)
        for rule in profile["syscalls"]:
            rule["names"] = [name for name in rule["names"] if name not in newer]
        profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
        numbers = "1000 451 440 436 248"
    bundle.spec["linux"]["seccomp"] = profile
    answer = runtime.run(bundle.python(CALLS.format(numbers=numbers)))
    assert answer.code == 0, answer.err
    wanted = ["ENOSYS", "ENOSYS"] if ours else ["ENOSYS", "ENOSYS", "ENOSYS", "EPERM", "EPERM"]
    assert answer.out.split() == wanted


@pytest.mark.threat(28, "system calls newer than the profile")
def test_libraries_of_new_images_find_their_way(runtime: Runtime, bundle: Bundle) -> None:
    """glibc's threads want clone3, its access(3) faccessat2: both have something to fall back on."""
    thread = "t = threading.Thread(target=print, args=(os.access('/', 4, effective_ids=True),))"
    program = f"import os, threading\n{thread}\nt.start()\nt.join()"
    answer = runtime.run(bundle.python(program))
    assert answer.out == "True\n", answer.err
