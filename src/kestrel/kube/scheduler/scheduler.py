"""The loop that binds pods: a pod without a node comes in, a binding or a reason goes out.

A pod that fits nowhere waits until something happens that could change that: a node, a claim or another pod. A pod that
was just bound counts on its node at once, although the watch shows it there only a moment later.
"""

import asyncio
import logging
from collections import defaultdict

from kestrel.base.clock import Clock, SystemClock, rfc3339
from kestrel.base.errors import Conflict, KestrelError, NotFound
from kestrel.kube.client import STRATEGIC_MERGE_PATCH, Client, JSONObject
from kestrel.kube.client.informer import Change, Informer
from kestrel.kube.client.recorder import NORMAL, WARNING, Recorder
from kestrel.kube.client.workqueue import WorkQueue
from kestrel.kube.scheduler import fit

log = logging.getLogger(__name__)

NAME = "default-scheduler"
Key = tuple[str, str]


class Scheduler:
    """Binds the pods that name this scheduler. Use `start` and `stop`."""

    def __init__(self, client: Client, *, name: str = NAME, clock: Clock | None = None) -> None:
        self._client = client
        self._name = name
        self._clock = clock or SystemClock()
        self._pods = Informer(client, "pods")
        self._nodes = Informer(client, "nodes")
        self._claims = Informer(client, "persistentvolumeclaims")
        self._recorder = Recorder(client, name, clock=self._clock)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._waiting: set[Key] = set()
        self._bound: dict[str, str] = {}
        """Node of each pod that counts, by the pod's uid: as the watch shows it, or as just decided."""
        self._usage: defaultdict[str, fit.Usage] = defaultdict(fit.Usage)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to bind."""
        await self._recorder.start()
        await self._nodes.start()
        await self._claims.start()
        self._nodes.on_change(self._node_changed)
        self._claims.on_change(lambda _: self._reconsider())
        self._pods.on_change(self._pod_changed)
        await self._pods.start()
        self._task = asyncio.create_task(self._queue.run(self._schedule), name="scheduler")

    async def stop(self) -> None:
        """Stop binding."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._queue.close()
        for informer in (self._pods, self._nodes, self._claims):
            await informer.stop()
        await self._recorder.stop()

    async def settled(self) -> None:
        """Wait until all events told so far are written."""
        await self._recorder.flush()

    def _pod_changed(self, change: Change) -> None:
        pod, uid = change.object, str(change.object["metadata"]["uid"])
        over = change.type == "DELETED" or (pod.get("status") or {}).get("phase") in fit.FINISHED
        if over:
            self._waiting.discard(change.key)
            self._uncount(uid)
            self._reconsider()
        elif pod["spec"].get("nodeName"):
            self._waiting.discard(change.key)
            self._count(pod, str(pod["spec"]["nodeName"]))
        elif self._is_ours(pod):
            self._queue.add(change.key)
        else:
            self._waiting.discard(change.key)

    def _count(self, pod: JSONObject, node: str) -> None:
        uid = str(pod["metadata"]["uid"])
        if self._bound.get(uid) != node:
            self._uncount(uid)
            self._bound[uid] = node
            self._usage[node].put(pod)

    def _uncount(self, uid: str) -> None:
        node = self._bound.pop(uid, None)
        if node is not None:
            self._usage[node].drop(uid)

    def _is_ours(self, pod: JSONObject) -> bool:
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and (spec.get("schedulerName") or NAME) == self._name
            and not pod["metadata"].get("deletionTimestamp")
            and not spec.get("schedulingGates")
            and pod["metadata"]["uid"] not in self._bound
        )

    def _node_changed(self, change: Change) -> None:
        # A heartbeat changes nothing that matters here.
        old, new = change.old, change.object
        if old is None or _relevant(old) != _relevant(new):
            self._reconsider()

    def _reconsider(self) -> None:
        for key in self._waiting:
            self._queue.add(key)

    async def _schedule(self, key: Key) -> None:
        namespace, name = key
        pod = self._pods.get(name, namespace)
        if pod is None or not self._is_ours(pod):
            return
        problem = self._unbound_claim(pod)
        nodes = self._nodes.list()
        if problem:
            await self._refuse(key, pod, f"0/{len(nodes)} nodes are available: {problem}.")
            return
        reasons = {_name(node): fit.misfits(pod, node, self._usage[_name(node)]) for node in nodes}
        candidates = [node for node in nodes if not reasons[_name(node)]]
        if not candidates:
            await self._refuse(key, pod, fit.unavailable(reasons.values(), len(nodes)))
            return
        best = max(candidates, key=lambda node: fit.score(pod, node, self._usage[_name(node)]))
        await self._bind(key, pod, _name(best))

    def _unbound_claim(self, pod: JSONObject) -> str:
        for volume in pod["spec"].get("volumes") or ():
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if not claim:
                continue
            found = self._claims.get(claim, pod["metadata"]["namespace"])
            if found is None:
                return f'persistentvolumeclaim "{claim}" not found'
            if found["metadata"].get("deletionTimestamp"):
                return f'persistentvolumeclaim "{claim}" is being deleted'
            if not found["spec"].get("volumeName"):
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    async def _bind(self, key: Key, pod: JSONObject, node: str) -> None:
        uid = str(pod["metadata"]["uid"])
        self._count(pod, node)
        self._waiting.discard(key)
        try:
            await self._client.bind(key[0], key[1], node, uid=uid)
        except (NotFound, Conflict) as error:
            self._uncount(uid)
            log.debug("pod %s/%s was not bound: %s", *key, error)
            return
        except KestrelError:
            self._uncount(uid)
            raise
        self._recorder.event(pod, NORMAL, "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {node}")

    async def _refuse(self, key: Key, pod: JSONObject, message: str) -> None:
        """Say why the pod waits, once for each reason, and wait for things to change."""
        self._waiting.add(key)
        conditions: list[JSONObject] = (pod.get("status") or {}).get("conditions") or []
        before = next((c for c in conditions if c["type"] == "PodScheduled"), JSONObject())
        if before.get("message") == message:
            return
        self._recorder.event(pod, WARNING, "FailedScheduling", message)
        now = rfc3339(self._clock.now())
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": before.get("lastTransitionTime") or now,
        }
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                "pods", key[1], patch, key[0], content_type=STRATEGIC_MERGE_PATCH, subresource="status"
            )
        except (NotFound, Conflict):
            self._waiting.discard(key)


def _name(node: JSONObject) -> str:
    return str(node["metadata"]["name"])


def _relevant(node: JSONObject) -> tuple[object, ...]:
    return node["metadata"].get("labels"), node["spec"], (node.get("status") or {}).get("allocatable")
