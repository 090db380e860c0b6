"""A container's root filesystem as a plan: data that can be stored, printed and compared before anything is mounted.

The snapshotter makes plans, the runtime carries them out inside the container's mount namespace, and the daemon
opens them as detached mounts (`man 2 fsmount`) to read or fill files by descriptor. No mount of a root filesystem
ever appears in the host's mount table.
"""

from __future__ import annotations

from kestrel.base.values import asdict, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Lower:
    """One read-only layer. `kind` is `directory` (overlay form: whiteouts are 0:0 character devices) or `erofs`.

    For `erofs`, `path` is the index and `data` the plain tar whose bytes it uses in place. It may be mounted already:
    `mounted` is where another process holds a descriptor of that (`/proc/PID/fd/N`), `device` the number it must have
    to be the one that is meant. Whoever uses the same mount shares what is cached of its files.
    """

    path: str
    kind: str = "directory"
    data: str = ""
    mounted: str = ""
    device: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """Layers, the topmost first, and where writes go. Without `upper` the root is read-only."""

    lowers: tuple[Lower, ...]
    upper: str = ""
    work: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values, for a message or for `kestrel explain`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rootfs:
        """Read back what `to_json` gave. Raises KeyError or TypeError when it is not a plan."""
        lowers = tuple(Lower(**lower) for lower in value["lowers"])
        return cls(lowers=lowers, upper=value.get("upper", ""), work=value.get("work", ""))
