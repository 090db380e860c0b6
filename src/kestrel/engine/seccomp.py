"""Which seccomp profile a container gets: ours, none, or one from a file."""

import json
from pathlib import Path
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.oci.runtime_defaults import default_seccomp

LIMIT = 1024 * 1024  # bytes of a profile


def profile(name: str) -> dict[str, Any] | None:
    """Return the spec's `linux.seccomp` for `default`, `unconfined` (None) or the path of a JSON file."""
    if name == "unconfined":
        return None
    if name == "default":
        return dict(default_seccomp())
    path = Path(name)
    try:
        data = path.read_bytes()[:LIMIT]
    except OSError as error:
        raise InvalidArgument(
            f"cannot read the seccomp profile {name}: {error.strerror}", hint="write default, unconfined or a path"
        ) from error
    try:
        found = json.loads(data)
    except ValueError as error:
        raise InvalidArgument(f"the seccomp profile {name} is not JSON: {error}") from error
    if not isinstance(found, dict) or "defaultAction" not in found:
        raise InvalidArgument(f"the seccomp profile {name} has no defaultAction")
    return found
