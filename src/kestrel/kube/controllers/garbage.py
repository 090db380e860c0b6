"""Objects that have lost their owner, and pods that have lost their node.

An object whose `metadata.ownerReferences` name only owners that do not exist any more is deleted in the background. An
owner that is deleted in the foreground waits for those of its dependents that block it; one that is deleted as an
orphan loses its references first (kubernetes.io "Garbage Collection"). Only objects that have owners are remembered.
"""

from functools import partial

from kestrel.base.errors import Conflict, NotFound
from kestrel.kube.api.scheme import BUILTIN, Resource
from kestrel.kube.client import Client, JSONObject
from kestrel.kube.client.informer import Change, Informer
from kestrel.kube.controllers.base import Loop
from kestrel.kube.controllers.namespace import plural

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

Key = tuple[str, str, str]
"""Resource, namespace and name."""


def collected() -> list[Resource]:
    """Return the kinds whose objects may own or be owned: all that are stored, but not events and leases."""
    skipped = {"events", "leases"}
    return [
        r for r in BUILTIN if {"list", "watch", "delete"} <= set(r.verbs) and not r.storage and r.plural not in skipped
    ]


class Garbage(Loop[Key]):
    """Background, foreground and orphan deletion, and pods of nodes that are gone."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._informers_of: dict[str, Informer] = {}
        self._kinds: dict[tuple[str, str], str] = {}
        self._namespaced: set[str] = set()
        self._dependents: dict[str, set[Key]] = {}
        for resource in collected():
            name = plural(resource)
            self._kinds[(resource.kind, resource.group)] = name
            if resource.namespaced:
                self._namespaced.add(name)
            self._informers_of[name] = self.follow(name, partial(self._concerned, name))

    def _concerned(self, resource: str, change: Change) -> list[Key]:
        """Note who owns the object; return what has to be looked at."""
        body, key = change.object, (resource, *change.key)
        uid = str(body["metadata"]["uid"])
        for old in _owners(change.old or {}):
            self._dependents.get(old["uid"], set()).discard(key)
        if change.type != "DELETED":
            for owner in _owners(body):
                self._dependents.setdefault(owner["uid"], set()).add(key)
        concerned: list[Key] = []
        if change.type == "DELETED":
            concerned += self._dependents.pop(uid, ())
            keys = [self._owner_key(owner, change.key[0]) for owner in _owners(body)]
            concerned += [found for found in keys if found is not None]
            if resource == "nodes":
                concerned += self._pods_of(change.key[1])
        elif _owners(body) or body["metadata"].get("deletionTimestamp"):
            concerned.append(key)
        return concerned

    def _pods_of(self, node: str) -> list[Key]:
        pods = self._informers_of["pods"].list()
        found = [pod for pod in pods if pod["spec"].get("nodeName") == node]
        return [("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in found]

    def _owner_key(self, owner: JSONObject, namespace: str) -> Key | None:
        group = str(owner["apiVersion"]).rpartition("/")[0]
        resource = self._kinds.get((str(owner["kind"]), group))
        if resource is None:
            return None
        return resource, namespace if resource in self._namespaced else "", str(owner["name"])

    async def sync(self, key: Key) -> None:
        """Delete what has lost its owners, and let go of owners that wait for their dependents."""
        resource, namespace, name = key
        body = self._informers_of[resource].get(name, namespace)
        if body is None:
            return
        finalizers = body["metadata"].get("finalizers") or ()
        if body["metadata"].get("deletionTimestamp"):
            if ORPHAN in finalizers:
                await self._orphan(key, body)
            elif FOREGROUND in finalizers:
                await self._foreground(key, body)
            return
        if resource == "pods" and await self._is_stranded(body):
            await self._delete(key, body, grace=0)
            return
        if _owners(body) and not await self._has_owner(body, namespace):
            await self._delete(key, body)

    async def _is_stranded(self, pod: JSONObject) -> bool:
        """Whether the pod is bound to a node that does not exist; asks the API, not a cache that may lag."""
        node = pod["spec"].get("nodeName")
        return bool(node) and await self.client.find("nodes", node) is None

    async def _has_owner(self, body: JSONObject, namespace: str) -> bool:
        for owner in _owners(body):
            group = str(owner["apiVersion"]).rpartition("/")[0]
            resource = self._kinds.get((str(owner["kind"]), group))
            if resource is None:
                return True  # a kind that is not served here; deleting on a guess would lose data
            where = namespace if resource in self._namespaced else ""
            found = await self.client.find(resource, str(owner["name"]), where)
            if found is not None and found["metadata"]["uid"] == owner["uid"] and not _leaving_in_foreground(found):
                return True
        return False

    async def _foreground(self, key: Key, body: JSONObject) -> None:
        blocking = False
        for dependent in self._dependents.get(str(body["metadata"]["uid"]), set()).copy():
            found = self._informers_of[dependent[0]].get(dependent[2], dependent[1])
            if found is None:
                continue
            if not found["metadata"].get("deletionTimestamp"):
                await self._delete(dependent, found, propagation="Foreground")
            owners = [o for o in _owners(found) if o["uid"] == body["metadata"]["uid"]]
            blocking = blocking or any(owner.get("blockOwnerDeletion") for owner in owners)
        if not blocking:
            await self._remove_finalizer(key, FOREGROUND)

    async def _orphan(self, key: Key, body: JSONObject) -> None:
        uid = body["metadata"]["uid"]
        for resource, namespace, name in self._dependents.get(str(uid), set()).copy():

            def edit(found: JSONObject) -> bool:
                found["metadata"]["ownerReferences"] = [owner for owner in _owners(found) if owner["uid"] != uid]
                return True

            await self.client.change(resource, name, namespace, edit)
        await self._remove_finalizer(key, ORPHAN)

    async def _remove_finalizer(self, key: Key, finalizer: str) -> None:
        def edit(found: JSONObject) -> bool:
            finalizers = found["metadata"].get("finalizers") or []
            found["metadata"]["finalizers"] = [name for name in finalizers if name != finalizer]
            return finalizer in finalizers

        await self.client.change(key[0], key[2], key[1], edit)

    async def _delete(
        self, key: Key, body: JSONObject, *, grace: int | None = None, propagation: str = "Background"
    ) -> None:
        try:
            await self.client.delete(
                key[0], key[2], key[1], uid=body["metadata"]["uid"], grace_seconds=grace, propagation=propagation
            )
        except (NotFound, Conflict):
            return


def _owners(body: JSONObject) -> list[JSONObject]:
    return list((body.get("metadata") or {}).get("ownerReferences") or ())


def _leaving_in_foreground(body: JSONObject) -> bool:
    metadata = body["metadata"]
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or ())
