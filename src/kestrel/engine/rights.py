"""What a container's process may do: docker's `--cap-add` and `--cap-drop` words as capability sets."""

from typing import Any

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.engine.model import Security
from kestrel.linux.capabilities import BITS, canonical
from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES


def kept_capabilities(security: Security) -> list[str]:
    """Return full names, in the order of their numbers. Raises InvalidArgument for a name that is none."""
    if security.privileged:
        return list(BITS)
    dropped = {_full(name) for name in security.drop_capabilities}
    added = {_full(name) for name in security.add_capabilities}
    kept = set() if "ALL" in dropped else set(DEFAULT_CAPABILITIES) - dropped
    kept |= set(BITS) - dropped if "ALL" in added else added
    return [name for name in BITS if name in kept]


def capability_sets(security: Security) -> dict[str, Any]:
    """Return the spec's five sets. Inheritable and ambient stay empty (CVE-2022-24769)."""
    names = kept_capabilities(security)
    return {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}


def _full(name: str) -> str:
    if name.upper() == "ALL":
        return "ALL"
    full = canonical(name)
    if full not in BITS:
        close = nearest(full, BITS)
        raise InvalidArgument(f"unknown capability {name!r}", hint=f"did you mean {close}?" if close else None)
    return full
