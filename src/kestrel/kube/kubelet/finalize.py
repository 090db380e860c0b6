"""The end of a pod on this node: nothing of it stays, and then the API may forget it."""

import asyncio
import shutil

from kestrel.base.errors import Conflict, NotFound
from kestrel.kube.client import Client
from kestrel.kube.kubelet import mounts
from kestrel.kube.kubelet.paths import Paths, log_directory
from kestrel.kube.kubelet.runtime import PodRuntime
from kestrel.pods.model import PodRecord


async def clean_up(runtime: PodRuntime, record: PodRecord, paths: Paths) -> None:
    """Remove sandboxes, containers, volumes and logs of a pod; what runs is killed. Repeating it is fine."""
    await asyncio.gather(*(runtime.stop_sandbox(sandbox.id) for sandbox in record.sandboxes if sandbox.ready))
    await asyncio.gather(*(runtime.remove_container(container.id) for container in record.containers))
    await asyncio.gather(*(runtime.remove_sandbox(sandbox.id) for sandbox in record.sandboxes))
    await asyncio.to_thread(mounts.clean_up, record.uid, paths)
    if record.name:
        logs = paths.logs / log_directory(record.namespace, record.name, record.uid)
        await asyncio.to_thread(shutil.rmtree, logs, ignore_errors=True)


async def let_go(client: Client, namespace: str, name: str, uid: str) -> None:
    """Delete the object itself; one that is gone, or is another pod of that name, is none of our business."""
    try:
        await client.delete("pods", name, namespace, grace_seconds=0, uid=uid)
    except (NotFound, Conflict):
        return
