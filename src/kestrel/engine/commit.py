"""What a container's files are: as one tar (`export`), or as an image with one layer more (`commit`).

Both read what the container wrote where it lies, never through a second mount of its overlay: that would empty the
work directory under the first one.
"""

import asyncio
import tempfile
from collections.abc import Iterable
from typing import Any

import msgspec

from kestrel.archive.diff import diff
from kestrel.archive.writer import Sink
from kestrel.base.clock import rfc3339
from kestrel.engine.model import Container
from kestrel.engine.parts import Parts
from kestrel.engine.ranges import users
from kestrel.images import Image
from kestrel.linux import mounts
from kestrel.oci.config import ContainerDefaults, History


async def export(parts: Parts, wanted: str, sink: Sink) -> None:
    """Write the container's whole root filesystem, without what is mounted in it; `sink` is written to in a thread.

    Raises NotFound.
    """
    container = parts.store.container(wanted)
    image = await parts.images.resolve(container.image_id)
    await asyncio.to_thread(_export, parts, container, image, sink)


def _export(parts: Parts, container: Container, image: Image, sink: Sink) -> None:
    snapshots = parts.snapshots
    with tempfile.TemporaryFile(dir=parts.settings.root) as changes:
        made = snapshots.commit(container.id, changes, users=users(container.first_id))
        known = snapshots.has_layer(made.diff_id)
        changes.seek(0)
        snapshots.add_layer(made.diff_id, changes)
    try:
        with mounts.opened(mounts.open_rootfs(snapshots.view((*image.layers, made.diff_id)))) as root:
            diff(root, sink)
    finally:
        if not known:
            snapshots.remove_layer(made.diff_id)


async def commit(parts: Parts, wanted: str, names: Iterable[str], *, author: str = "", comment: str = "") -> Image:
    """Make an image of what the container's image is and what it wrote; it starts as the container did.

    Raises NotFound, InvalidArgument for a name that is none.
    """
    container = parts.store.container(wanted)
    image = await parts.images.resolve(container.image_id)
    moment = rfc3339(parts.clock.now())
    words = " ".join(container.config.args or container.config.command or ())
    step = History(created=moment, created_by=words, author=author, comment=comment)
    config = msgspec.structs.replace(image.config, config=_defaults(container, image.config.config), created=moment)

    def write(sink: Sink) -> None:
        parts.snapshots.commit(container.id, sink, users=users(container.first_id))

    return await parts.images.add_layer(image, write, config, step, names=names)


def _defaults(container: Container, image: ContainerDefaults) -> ContainerDefaults:
    """Return what a container of the new image gets: the image's words, and over them what this container was told."""
    told = container.config
    changes: dict[str, Any] = {
        "env": tuple(f"{name}={value}" for name, value in {**image.environment(), **dict(told.env)}.items()),
        "labels": {**image.labels, **told.labels},
    }
    if told.command is not None:
        changes |= {"entrypoint": told.command, "cmd": None}
    if told.args is not None:
        changes["cmd"] = told.args
    changes |= {"working_dir": told.cwd} if told.cwd else {}
    changes |= {"user": told.security.user} if told.security.user else {}
    return msgspec.structs.replace(image, **changes)
