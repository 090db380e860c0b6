"""A spec's seccomp profile as the program and the flags that init installs."""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.linux import abi
from kestrel.runtime.process import Filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # for a process with several threads, which we are not
    "SECCOMP_FILTER_FLAG_LOG": abi.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": abi.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}


def compiled(profile: dict[str, Any] | None, cache: str) -> Filter | None:
    """Return the compiled filter of a profile, from the cache where it has been compiled before."""
    if not profile:
        return None
    from kestrel.linux import seccomp

    # A profile that says nothing of flags has always had this one from runc.
    wanted = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] if profile.get("flags") is None else profile["flags"]
    unknown = [name for name in wanted if name not in FLAGS]
    if unknown:
        raise InvalidArgument(f"unknown seccomp flag {unknown[0]}", hint=f"one of {', '.join(FLAGS)}")
    bits = sum(FLAGS[name] for name in wanted)
    if any(rule.get("action") == "SCMP_ACT_NOTIFY" for rule in profile.get("syscalls") or ()):
        if not profile.get("listenerPath"):
            raise InvalidArgument("linux.seccomp.listenerPath is missing, which SCMP_ACT_NOTIFY needs")
        bits |= abi.SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        return Filter(program=seccomp.program(profile, cache), flags=bits)
    except ValueError as error:
        raise InvalidArgument(f"linux.seccomp: {error}") from error
