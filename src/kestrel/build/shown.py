"""What RUN --mount=type=bind shows, mounted as it is instead of copied.

A stage or an image is a root already: its mount is handed on by descriptor. Of a context a layer is made, as COPY
would make it, and kept under the digest of what it shows: a command that runs again on the same files finds it. It
has the owners and times of a layer too, so what a command sees does not depend on who checked the files out when.

Writable mounts are copied, for the writes are thrown away; so is everything where a kernel does not let a detached
mount be cloned (`man 2 open_tree`; Linux does since 6.15).
"""

import os
import time
from contextlib import ExitStack

from kestrel.base.errors import NotFound
from kestrel.build.cache import Cache, Layer, StepRecord, key_of
from kestrel.build.direct import compose
from kestrel.build.executor import RunMount
from kestrel.build.gather import Gathering
from kestrel.build.graph import CopyFiles
from kestrel.build.layers import Layers, plain_directory
from kestrel.dockerfile.instructions import Mount
from kestrel.linux import mounts
from kestrel.linux.rootfs import Rootfs
from kestrel.oci.digest import Digest

_PLACE = "content"


def shown(
    gathering: Gathering, mount: Mount, stack: ExitStack, *, epoch: int, layers: Layers, cache: Cache
) -> RunMount | None:
    """Return what to mount, good until `stack` is closed; None when it has to be copied. Blocks."""
    tree, sources = gathering.sources()
    if not sources:
        raise NotFound(f"`{mount.source.lstrip('/')}` is not in {tree.name}")
    if not mount.read_only or len(sources) > 1:
        return None
    if tree.view is not None:
        return _through(mount, tree.view, tree.fd, sources[0].path)
    view = layers.view((Digest.parse(_layer(gathering, mount, epoch, layers, cache).diff_id),))
    root = stack.enter_context(mounts.opened(mounts.open_rootfs(view)))
    return _through(mount, view, root, _PLACE)


def _through(mount: Mount, view: Rootfs, root: int, path: str) -> RunMount | None:
    """Show a path of a root that is open: by the host's own path, or by the descriptor of a single layer's mount.

    Overlayfs cannot be id-mapped, its layers can: of several layers the plan is handed on, for whoever runs the
    command to carry out with the users that it is going to have.
    """
    directory = plain_directory(view)
    if directory:
        return RunMount(target=mount.target, source=f"{directory}/{path}")
    try:
        with mounts.opened(mounts.clone(f"/proc/self/fd/{root}")):
            if len(view.lowers) > 1:
                return RunMount(target=mount.target, source=path, rootfs=view)
            return RunMount(target=mount.target, source=f"/proc/{os.getpid()}/fd/{root}/{path}")
    except OSError:
        return None


def _layer(gathering: Gathering, mount: Mount, epoch: int, layers: Layers, cache: Cache) -> Layer:
    inputs = {"op": "show", "digest": gathering.digest(None, owned=False), "epoch": epoch}
    key = key_of(inputs)
    known = cache.lookup(key)
    if known is not None and layers.usable(known.layer):
        return known.layer
    began = time.monotonic()
    with ExitStack() as stack:
        items = compose(
            CopyFiles(selections=(gathering.selection,), destination=f"/{_PLACE}", as_directory=False),
            -1,
            {0: gathering},
            epoch,
            owner=None,
            mode=None,
            is_archive=lambda _: False,
            stack=stack,
        )
        layer = layers.write(items or {})
    title = f"--mount=type=bind,source={mount.source},target={mount.target}"
    seconds = time.monotonic() - began
    cache.record(
        StepRecord(key=key, title=title, inputs=inputs, layer=layer, seconds=seconds, created=int(time.time()))
    )
    return layer
