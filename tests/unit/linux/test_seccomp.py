import ctypes
import json
import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.linux import seccomp, syscalls
from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES, default_seccomp
from kestrel.oci.runtime_seccomp import ALLOWED, BY_CAPABILITY, REFUSED

PEER = Path("/usr/share/containers/seccomp.json")


def action_of(profile: dict[str, Any], name: str) -> str:
    """Return what the profile does with a call that has no arguments of interest."""
    found = [rule for rule in profile["syscalls"] if name in rule["names"] and not rule["args"]]
    if not found:
        return f"{profile['defaultAction']}:{profile['defaultErrnoRet']}"
    return f"{found[0]['action']}:{found[0].get('errnoRet', '')}".rstrip(":")


def test_no_name_is_in_two_lists() -> None:
    closed = {name for names in BY_CAPABILITY.values() for name in names}
    assert len(ALLOWED) == len(set(ALLOWED))
    assert not set(ALLOWED) & set(REFUSED)
    assert not set(ALLOWED) & closed
    assert not set(REFUSED) & closed


@pytest.mark.parametrize("name", ["mount", "unshare", "setns", "bpf", "init_module", "reboot", "open_by_handle_at"])
def test_what_administers_the_machine_is_refused(name: str) -> None:
    assert action_of(default_seccomp(), name) == "SCMP_ACT_ERRNO:1"


def test_a_capability_opens_its_calls() -> None:
    assert action_of(default_seccomp([*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"]), "mount") == "SCMP_ACT_ALLOW"


@pytest.mark.parametrize("name", ["clone3", "some_call_of_2030"])
def test_what_is_newer_than_the_profile_does_not_exist(name: str) -> None:
    assert action_of(default_seccomp(), name) == "SCMP_ACT_ERRNO:38"


def test_a_program_is_compiled_once_and_then_read(tmp_path: Path) -> None:
    profile = default_seccomp()
    first = seccomp.program(profile, str(tmp_path))
    assert len(first) % 8 == 0
    assert len(first) // 8 <= 4096  # BPF_MAXINSNS
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"12345678")
    assert seccomp.program(profile, str(tmp_path)) == b"12345678"


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"defaultAction": "SCMP_ACT_WEIRD"},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_WEIRD"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "x"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "x"}]}],
        },
    ],
)
def test_a_wrong_profile_says_what_is_wrong(profile: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"action|architecture|operator"):
        seccomp.program(profile, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not PEER.exists(), reason="no profile of another engine is installed")
def test_nothing_is_allowed_that_the_peers_refuse_but_for_known_reasons() -> None:
    theirs: set[str] = set()
    for rule in json.loads(PEER.read_text())["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW":
            theirs |= set(rule["names"])
    newer = (
        "cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat io_pgetevents "
        "io_pgetevents_time64 listmount listxattrat map_shadow_stack mseal removexattrat riscv_flush_icache "
        "riscv_hwprobe set_mempolicy_home_node setxattrat statmount uretprobe "
    )
    # names of other architectures or of old interfaces, and calls that docker allows and that profile does not
    others = "nice oldfstat oldlstat oldolduname oldstat olduname sgetmask ssetmask vmsplice "
    assert set(ALLOWED) - theirs <= {*newer.split(), *others.split()}


@pytest.mark.parametrize(("number", "wanted"), [(1000, 38), (169, 1), (39, 0)])
def test_a_call_above_all_that_a_profile_names_is_not_there(number: int, wanted: int) -> None:
    """169 is reboot, which the profile leaves out, and 39 getpid; no x86-64 has a call 1000."""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    rules = [{"names": [*ALLOWED], "action": "SCMP_ACT_ALLOW"}]
    program = seccomp.compile_profile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        syscalls.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS: then no right is needed
        syscalls.seccomp_filter(program)
        os._exit(ctypes.get_errno() if libc.syscall(number, 0, 0, 0, 0) < 0 else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == wanted


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "as default action"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}, "write"),
    ],
)
def test_an_agent_cannot_be_left_what_its_listener_is_told_by(profile: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        seccomp.compile_profile(profile)
