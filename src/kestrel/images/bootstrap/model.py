"""What a bootstrap is asked for and what comes out of it: values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.images.model import Progress, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A kind of base image: a word for it, the image's usual name, and the packages of each layer, bottom first.

    `essential` puts every package marked Essential into the bottom layer: others may rely on those without saying so
    (Debian Policy 3.8). Without it the image is only what is named and what that declares.
    """

    name: str
    image: str
    summary: str
    layers: tuple[tuple[str, ...], ...]
    essential: bool = True
    command: tuple[str, ...] = ("bash",)
    env: tuple[str, ...] = ()


MINIMAL = Variant(
    name="minimal",
    image="kestrel/minimal:bootstrap",
    summary="a shell and the core utilities, nothing that installs more",
    layers=(("base-files", "base-passwd", "bash", "coreutils", "dash", "grep", "libc-bin", "ncurses-base", "sed"),),
    essential=False,
)
DEBIAN = Variant(
    name="debian",
    image="kestrel/debian:bootstrap",
    summary="Debian's essential packages and apt",
    layers=(("apt",),),
)
PYTHON = Variant(
    name="python",
    image="kestrel/python:bootstrap",
    summary="Debian's essential packages and apt, and on top Python with pip and venv",
    layers=(("apt",), ("ca-certificates", "python-is-python3", "python3", "python3-pip", "python3-venv")),
    command=("python3",),
    # Output as it happens, as in the official image; people follow logs.
    env=("PYTHONUNBUFFERED=1", "LANG=C.UTF-8"),
)
VARIANTS = {variant.name: variant for variant in (MINIMAL, DEBIAN, PYTHON)}


def variant(name: str) -> Variant:
    """Return a variant by its word; empty means `debian`. Raises InvalidArgument with the nearest word."""
    if not name:
        return DEBIAN
    if name not in VARIANTS:
        like = nearest(name, VARIANTS)
        raise InvalidArgument(
            f"there is no base image variant {name!r}",
            hint=f"did you mean {like}?" if like else f"there are {', '.join(VARIANTS)}",
        )
    return VARIANTS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer as an uncompressed tar on disk; `digest` (`sha256:...`) is also its diff_id."""

    path: Path
    digest: str
    size: int
    packages: tuple[str, ...]
    """`name=version` of what it adds, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrapped:
    """A base image before it enters the store: layers bottom first, and the image configuration as plain JSON."""

    name: str
    layers: tuple[BuiltLayer, ...]
    config: dict[str, Any]
    sources: tuple[str, ...]
    """The archives used: `http://mirror/debian bookworm main`."""
    notes: tuple[str, ...]
    """What was left out or done differently, one sentence each."""


__all__ = [
    "DEBIAN",
    "MINIMAL",
    "PYTHON",
    "VARIANTS",
    "Bootstrapped",
    "BuiltLayer",
    "Progress",
    "Report",
    "Variant",
    "variant",
]
