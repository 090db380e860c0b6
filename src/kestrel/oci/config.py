"""The configuration of an image (image-spec config.md): what a container of it runs, and what it is made of.

The identity of an image, as docker shows it, is the digest of these bytes.
"""

from datetime import UTC, datetime
from typing import Any, Final

from kestrel.base.errors import InvalidArgument
from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform
from kestrel.oci.records import Record, from_json, parse_json

LIMIT: Final = 8 * 1024 * 1024
"""Most bytes of a configuration. Real ones have a few kilobytes; a very long history still fits."""


class Healthcheck(Record, frozen=True, kw_only=True, rename="pascal"):
    """Docker's HEALTHCHECK. Durations are nanoseconds, zero means inherit."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerDefaults(Record, frozen=True, kw_only=True, rename="pascal"):
    """What a container of the image gets unless it is told otherwise.

    `exposed_ports` and `volumes` are JSON objects whose keys matter (`80/tcp`, `/data`) and whose values are empty.
    `entrypoint` and `cmd` are None where the image says nothing.
    """

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    args_escaped: bool = False

    def environment(self) -> dict[str, str]:
        """Return `env` as a mapping; of two entries of one name the later wins, an entry without `=` is empty."""
        return {name: value for name, _, value in (entry.partition("=") for entry in self.env)}


class RootFS(Record, frozen=True, kw_only=True):
    """The layers, lowest first, each by the digest of its uncompressed tar."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write both fields always: the spec requires them."""
        return {**self.extra, "type": self.type, "diff_ids": [str(each) for each in self.diff_ids]}


class History(Record, frozen=True, kw_only=True):
    """One step that made the image. `empty_layer` marks a step that left no layer behind."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Record, frozen=True, kw_only=True, rename={"os_version": "os.version", "os_features": "os.features"}):
    """The whole document. `created` is RFC 3339 text as it came, empty when unknown; `created_at` parses it."""

    created: str = ""
    author: str = ""
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    config: ContainerDefaults = ContainerDefaults()
    rootfs: RootFS = RootFS()
    history: tuple[History, ...] = ()

    @classmethod
    def decode(cls, data: bytes) -> "ImageConfig":
        """Read a stranger's configuration; raises InvalidArgument that names the field."""
        image = from_json(cls, parse_json(data, what="image configuration", limit=LIMIT))
        if image.rootfs.type != "layers":
            raise InvalidArgument(f"image configuration has rootfs.type {image.rootfs.type!r}, only 'layers' exists")
        return image

    def to_json(self) -> dict[str, Any]:
        """Write `rootfs` always: the spec requires it even when it lists nothing."""
        written = Record.to_json(self)
        written["rootfs"] = self.rootfs.to_json()
        return written

    @property
    def platform(self) -> Platform:
        """What the image runs on."""
        return Platform(
            os=self.os or "linux",
            architecture=self.architecture,
            variant=self.variant,
            os_version=self.os_version,
            os_features=self.os_features,
        )

    @property
    def created_at(self) -> datetime | None:
        """The moment in UTC, or None when there is none or it cannot be read."""
        return parse_time(self.created)


def parse_time(text: str) -> datetime | None:
    """Read RFC 3339 as Go writes it, with up to nine digits of fraction (cut to six)."""
    if not text:
        return None
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
