"""What an image runs on: operating system, architecture, variant (image-spec image-index.md, `platform`).

Matching follows containerd's rules in spirit: names are normalised (`x86_64` is `amd64`, `arm64/v8` is `arm64`),
and a machine also runs what is made for its older variants, the newest of them preferred.
"""

import os

from kestrel.base.errors import InvalidArgument
from kestrel.oci.records import Record

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v7"),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_BASE_VARIANT = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_NEWEST_VARIANT = {"arm": 7, "arm64": 9, "amd64": 4}


class Platform(Record, frozen=True, kw_only=True, rename={"os_version": "os.version", "os_features": "os.features"}):
    """A target. `variant` is empty where the architecture has none that matters."""

    architecture: str
    os: str
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Platform":
        """Read `os/arch[/variant]`, `arch` alone or `os` alone, as `--platform` takes it."""
        parts = text.strip().lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise InvalidArgument(f"invalid platform {text!r}", hint="write it as linux/amd64 or linux/arm/v7")
        host = cls.host()
        if len(parts) == 1:
            if parts[0] in ("linux", "windows", "darwin", "freebsd"):
                return cls(os=parts[0], architecture=host.architecture, variant=host.variant)
            parts.insert(0, host.os)
        return cls(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "").normalized()

    @classmethod
    def host(cls) -> "Platform":
        """Return the platform this machine's kernel reports."""
        return cls(os="linux", architecture=os.uname().machine).normalized()

    def normalized(self) -> "Platform":
        """Return the same platform in the spelling the image spec uses."""
        architecture, variant = _ARCHITECTURES.get(self.architecture.lower(), (self.architecture.lower(), ""))
        variant = self.variant.lower() or variant
        if variant.isdigit():
            variant = f"v{variant}"
        if architecture != "arm" and variant == _BASE_VARIANT.get(architecture):
            variant = ""
        elif architecture == "arm" and not variant:
            variant = "v7"
        return Platform(
            os=self.os.lower() or "linux",
            architecture=architecture,
            variant=variant,
            os_version=self.os_version,
            os_features=self.os_features,
            extra=self.extra,
        )

    def rank(self, other: "Platform") -> int:
        """Return how well a machine of this platform runs what `other` names: 0 not at all, more is better."""
        mine, its = self.normalized(), other.normalized()
        if mine.os != its.os or mine.architecture != its.architecture:
            return 0
        if mine.variant == its.variant:
            return 100
        have, need = _level(mine), _level(its)
        return 1 + need if 0 < need <= have else 0

    def matches(self, other: "Platform") -> bool:
        """Whether a machine of this platform runs what is made for `other`."""
        return self.rank(other) > 0

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _level(platform: Platform) -> int:
    variant = platform.variant or _BASE_VARIANT.get(platform.architecture, "")
    number = variant.removeprefix("v").partition(".")[0]
    level = int(number) if number.isdigit() and len(number) < 4 else 0
    return level if level <= _NEWEST_VARIANT.get(platform.architecture, 0) else 0
