"""Namespaces: those the platform always has, and the end of one: first everything in it, then itself.

A namespace that is deleted stays, Terminating, until its `kubernetes` finalizer is removed, which happens here once
nothing is left in it (kubernetes.io "Namespaces"). While something is left, for instance pods in their grace period,
the loop looks again; the namespace's conditions say what it waits for.
"""

from collections.abc import Sequence

from kestrel.base.clock import Clock, SystemClock, rfc3339
from kestrel.base.errors import AlreadyExists, Conflict, NotFound
from kestrel.kube.api.scheme import BUILTIN, Resource
from kestrel.kube.client import Client, JSONObject
from kestrel.kube.controllers.base import Loop

ALWAYS = ("default", "kube-system", "kube-public", "kube-node-lease")
FINALIZER = "kubernetes"
LOOK_AGAIN = 0.25
"""Seconds between looks at a namespace that is being emptied."""


def contents() -> list[Resource]:
    """Return every kind that lives in namespaces and can be listed and deleted, once."""
    kinds = [r for r in BUILTIN if r.namespaced and {"list", "delete"} <= set(r.verbs) and not _is_view(r)]
    return sorted(kinds, key=lambda resource: (resource.group, resource.plural))


def _is_view(resource: Resource) -> bool:
    """Whether the kind only shows another's objects, as events.k8s.io shows core events."""
    return resource.storage is not None


def plural(resource: Resource) -> str:
    """Return the name by which the client knows a kind."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


class Namespaces(Loop[str]):
    """The life of namespaces."""

    def __init__(self, client: Client, *, clock: Clock | None = None) -> None:
        super().__init__(client)
        self._clock = clock or SystemClock()
        self._namespaces = self.follow("namespaces", lambda change: (change.key[1],))

    async def prepare(self) -> None:
        """Make the namespaces that must exist."""
        for name in ALWAYS:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            if await self.client.find("namespaces", name) is None:
                try:
                    await self.client.create("namespaces", body)
                except AlreadyExists:
                    continue

    async def sync(self, key: str) -> None:
        """Empty and release a namespace that is being deleted."""
        namespace = self._namespaces.get(key)
        if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
            return
        left = await self._empty(key)
        if left:
            await self._say(key, left)
            self.queue.add_after(key, LOOK_AGAIN)
            return
        await self._release(key)

    async def _empty(self, namespace: str) -> list[str]:
        """Delete what is in a namespace; return what is still there, one phrase for each kind."""
        left = []
        for resource in contents():
            found = (await self.client.list(plural(resource), namespace)).items
            for body in found:
                await self._delete(plural(resource), body, namespace)
            remaining = (await self.client.list(plural(resource), namespace)).items if found else []
            if remaining:
                left.append(f"{plural(resource)}. has {len(remaining)} resource instances")
        return left

    async def _delete(self, resource: str, body: JSONObject, namespace: str) -> None:
        if body["metadata"].get("deletionTimestamp"):
            return
        try:
            await self.client.delete(resource, body["metadata"]["name"], namespace, propagation="Background")
        except (NotFound, Conflict):
            return

    async def _say(self, name: str, left: Sequence[str]) -> None:
        message = f"Some resources are remaining: {', '.join(left)}"
        now = rfc3339(self._clock.now())

        def edit(body: JSONObject) -> bool:
            status = body.setdefault("status", {})
            others = [c for c in status.get("conditions") or () if c["type"] != "NamespaceContentRemaining"]
            before = [c for c in status.get("conditions") or () if c["type"] == "NamespaceContentRemaining"]
            if before and before[0]["message"] == message:
                return False
            since = before[0]["lastTransitionTime"] if before else now
            condition = {
                "type": "NamespaceContentRemaining",
                "status": "True",
                "reason": "SomeResourcesRemain",
                "message": message,
                "lastTransitionTime": since,
            }
            status["conditions"] = [*others, condition]
            return True

        await self.client.change("namespaces", name, "", edit, subresource="status")

    async def _release(self, name: str) -> None:
        def edit(body: JSONObject) -> bool:
            finalizers = (body.get("spec") or {}).get("finalizers") or []
            body.setdefault("spec", {})["finalizers"] = [f for f in finalizers if f != FINALIZER]
            return True

        await self.client.change("namespaces", name, "", edit, subresource="finalize")
