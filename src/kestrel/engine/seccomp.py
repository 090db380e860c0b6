"""Which seccomp profile a container gets: ours, none, or one from a file."""

import json
from pathlib import Path
from typing import Any

from kestrel.base.errors import InvalidArgument
from kestrel.engine.model import Security
from kestrel.engine.rights import kept_capabilities
from kestrel.oci.runtime_defaults import default_seccomp

LIMIT = 1024 * 1024  # bytes of a profile


def profile(security: Security) -> dict[str, Any] | None:
    """Return the spec's `linux.seccomp`; None for `unconfined` and for the privileged.

    Our own profile allows the calls that go with the container's capabilities. Raises InvalidArgument for a file
    that cannot be read or is no profile.
    """
    if security.privileged or security.seccomp == "unconfined":
        return None
    if security.seccomp == "default":
        return default_seccomp(kept_capabilities(security))
    return _from_file(Path(security.seccomp))


def _from_file(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()[:LIMIT]
    except OSError as error:
        raise InvalidArgument(
            f"cannot read the seccomp profile {path}: {error.strerror}", hint="write default, unconfined or a path"
        ) from error
    try:
        found = json.loads(data)
    except ValueError as error:
        raise InvalidArgument(f"the seccomp profile {path} is not JSON: {error}") from error
    if not isinstance(found, dict) or "defaultAction" not in found:
        raise InvalidArgument(f"the seccomp profile {path} has no defaultAction")
    return found
