"""After a start of the daemon: take back every sandbox whose shim lives, and bury the others properly.

Shims keep running while no daemon does, and tell whoever connects next what ended meanwhile. What has no shim any more
cannot have processes either, except ones that outlived a killed shim: their cgroups are emptied here.
"""

import asyncio
import re
import shutil
from collections.abc import Iterator

from kestrel.base.errors import KestrelError
from kestrel.base.ids import short
from kestrel.engine import sandbox as sandboxes
from kestrel.engine.model import Sandbox, SandboxState
from kestrel.engine.parts import Parts
from kestrel.engine.shims import Shim
from kestrel.linux import cgroups

SANDBOX_GROUP = re.compile(r"[0-9a-f]{12}")


async def recover(parts: Parts) -> None:
    """Bring memory, records and the host in line."""
    for sandbox in list(parts.store.sandboxes.values()):
        if sandbox.state is SandboxState.READY:
            await _adopt(parts, sandbox)
    ready = {s.id for s in parts.store.sandboxes.values() if s.state is SandboxState.READY}
    await parts.network.recover(ready)
    await asyncio.to_thread(_remove_strays, parts, {short(identity) for identity in ready})


async def _adopt(parts: Parts, sandbox: Sandbox) -> None:
    try:
        shim = await Shim.connect(parts.sandbox_directory(sandbox.id))
    except KestrelError:
        await sandboxes.gone(parts, sandbox, reason=sandboxes.KILLED)
        return
    parts.shims[sandbox.id] = shim
    sandboxes.watch(parts, sandbox.id, shim)


def _remove_strays(parts: Parts, alive: set[str]) -> None:
    """Remove run-time directories and cgroups of sandboxes that nobody knows any more."""
    directory = parts.settings.run / "sandboxes"
    if directory.is_dir():
        for entry in directory.iterdir():
            if entry.name not in alive:
                shutil.rmtree(entry, ignore_errors=True)
    for path in _sandbox_groups(cgroups.detect(), parts.settings.cgroup):
        if path.rpartition("/")[2] not in alive:
            sandboxes.clear_cgroup(path)


def _sandbox_groups(hierarchy: cgroups.Hierarchy, top: str) -> Iterator[str]:
    """Yield the groups of sandboxes, known by their names, at any depth below `top`."""
    for path in hierarchy.children(top):
        if SANDBOX_GROUP.fullmatch(path.rpartition("/")[2]):
            yield path
        else:
            yield from _sandbox_groups(hierarchy, path)
