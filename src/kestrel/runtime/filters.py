"""A spec's seccomp profile as the program and the flags that init installs."""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.linux import abi
from kestrel.runtime.process import Filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def compiled(profile: dict[str, Any] | None, cache: str) -> Filter | None:
    """Return the compiled filter of a profile, from the cache where it has been compiled before."""
    if not profile:
        return None
    from kestrel.linux import seccomp

    flags = {"SECCOMP_FILTER_FLAG_LOG": abi.SECCOMP_FILTER_FLAG_LOG}
    flags["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] = abi.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    unknown = [name for name in profile.get("flags") or () if name not in flags and not name.endswith("_TSYNC")]
    if unknown:
        raise InvalidArgument(f"unknown seccomp flag {unknown[0]}")
    bits = sum(flags.get(name, 0) for name in profile.get("flags") or ())
    try:
        return Filter(program=seccomp.program(profile, cache), flags=bits)
    except ValueError as error:
        raise InvalidArgument(f"linux.seccomp: {error}") from error
