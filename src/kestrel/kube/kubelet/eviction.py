"""Evicts a pod that has filled an emptyDir beyond its `sizeLimit`.

One in memory cannot grow beyond it (tmpfs). A directory on disk can, for want of quotas, so those that have a limit are
measured every ten seconds, as the real kubelet does; a pod without such a limit costs nothing.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from kestrel.kube.api.pod_resources import amount
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.paths import Paths

PERIOD = 10.0  # seconds
BLOCK = 512  # bytes of a unit of st_blocks (`man 2 stat`)


def limits(pod: JSONObject) -> dict[str, str]:
    """Return the quantities beyond which emptyDirs on disk may not grow, by the volume's name."""
    found = {v["name"]: v["emptyDir"] or {} for v in pod["spec"].get("volumes") or () if "emptyDir" in v}
    return {
        name: str(source["sizeLimit"])
        for name, source in found.items()
        if source.get("sizeLimit") and source.get("medium") != "Memory"
    }


def overfull(pod: JSONObject, paths: Paths) -> str:
    """Say which volume has outgrown its limit, empty when none has. Walks directories: call it in a thread."""
    for name, limit in limits(pod).items():
        allowed = amount(limit)
        if allowed and used(paths.volume(pods.uid(pod), name)) > allowed:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    return ""


def used(directory: Path) -> int:
    """Return the bytes that files below a directory take on disk; what goes away meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * BLOCK
            except OSError:
                continue
    return total


async def watch(pod: Callable[[], JSONObject], paths: Paths, evict: Callable[[str], None]) -> None:
    """Measure now and then until a volume is too full; then call `evict` with the reason, once."""
    while True:
        reason = await asyncio.to_thread(overfull, pod(), paths)
        if reason:
            evict(reason)
            return
        await asyncio.sleep(PERIOD)
