"""Claims and volumes: binding, making local volumes on demand, and what becomes of them afterwards.

The StorageClass `local` is the default and makes a directory on this machine. Volumes are bound as soon as the claim
exists (`Immediate`), because every node of this platform is on the same machine: waiting for a pod could not choose a
better place. A claim that a pod uses is not deleted under it, and a bound volume not under its claim
(`kubernetes.io/pvc-protection`, `pv-protection`). The size is recorded, and grows when the claim does.
"""

import asyncio
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

from kestrel.base.errors import AlreadyExists, Conflict, KestrelError, NotFound
from kestrel.kube.api import quantity
from kestrel.kube.client import Client, JSONObject
from kestrel.kube.client.informer import Change
from kestrel.kube.client.recorder import NORMAL, WARNING, Recorder
from kestrel.kube.controllers import claims
from kestrel.kube.controllers.base import Loop

CLASS = "local"
PROVISIONER = "kestrel.dev/local"
CLAIM_PROTECTION = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION = "kubernetes.io/pv-protection"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
BOUND = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io"

Key = tuple[str, str, str]
"""CLAIMS or VOLUMES, namespace and name."""


class Directories(Protocol):
    """Where local volumes are: `volumes.VolumeService`."""

    def ensure(self, name: str, *, size: int = 0, labels: Mapping[str, str] | None = None) -> Any:
        """Return the directory's record, with its `path`."""
        ...

    def hold(self, name: str, user: str) -> None:
        """Note who uses a directory, so that nobody clears it as unused; raises NotFound."""
        ...

    def resize(self, name: str, size: int) -> Any:
        """Record another size."""
        ...

    def remove(self, name: str, *, force: bool = False) -> None:
        """Delete a directory and its data; raises NotFound."""
        ...


class Storage(Loop[Key]):
    """Binds claims to volumes and makes volumes for them."""

    def __init__(self, client: Client, directories: Directories) -> None:
        super().__init__(client)
        self._directories = directories
        self._recorder = Recorder(client, "persistentvolume-controller")
        self._classes = self.follow(CLASSES, lambda _: self._open_claims())
        self._volumes = self.follow(VOLUMES, self._volume_keys)
        self._claims = self.follow(CLAIMS, self._claim_keys)
        self._pods = self.follow("pods", self._pod_keys)

    async def prepare(self) -> None:
        """Make the default StorageClass, once: who deletes or changes it means it."""
        await self._recorder.start()
        if (await self.client.list(CLASSES)).items:
            return
        body = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS, "annotations": {claims.DEFAULT_MARK: "true"}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
            "allowVolumeExpansion": True,
        }
        try:
            await self.client.create(CLASSES, body)
        except AlreadyExists:
            return

    async def stop(self) -> None:
        """End."""
        await super().stop()
        await self._recorder.stop()

    # Who is concerned by a change

    def _claim_keys(self, change: Change) -> list[Key]:
        keys: list[Key] = [(CLAIMS, *change.key)]
        volume = change.object["spec"].get("volumeName")
        if volume and change.type == "DELETED":
            keys.append((VOLUMES, "", volume))
        return keys

    def _volume_keys(self, change: Change) -> list[Key]:
        keys: list[Key] = [(VOLUMES, "", change.key[1])]
        reference = change.object["spec"].get("claimRef")
        if reference:
            keys.append((CLAIMS, str(reference["namespace"]), str(reference["name"])))
        elif change.type == "ADDED":
            keys += self._open_claims()
        return keys

    def _pod_keys(self, change: Change) -> list[Key]:
        pod = change.object
        if change.type != "DELETED" and (pod.get("status") or {}).get("phase") not in claims.FINISHED:
            return []
        volumes = pod["spec"].get("volumes") or ()
        names = [(v.get("persistentVolumeClaim") or {}).get("claimName") for v in volumes]
        return [(CLAIMS, pod["metadata"]["namespace"], name) for name in names if name]

    def _open_claims(self) -> list[Key]:
        found = [claim for claim in self._claims.list() if claims.phase(claim) == "Pending"]
        return [(CLAIMS, c["metadata"]["namespace"], c["metadata"]["name"]) for c in found]

    async def sync(self, key: Key) -> None:
        """Bring one claim or volume a step closer to how it should be; the API is asked, not a cache that may lag."""
        kind, namespace, name = key
        body = await self.client.find(kind, name, namespace)
        if body is None:
            return
        if kind == CLAIMS:
            await self._claim(body)
        else:
            await self._volume(body)

    # Claims

    async def _claim(self, claim: JSONObject) -> None:
        if claim["metadata"].get("deletionTimestamp"):
            if not claims.used_by(claim, (await self.client.list("pods", claim["metadata"]["namespace"])).items):
                await self._drop_finalizer(CLAIMS, claim, CLAIM_PROTECTION)
            return
        if CLAIM_PROTECTION not in (claim["metadata"].get("finalizers") or ()):
            claim = await self._add_finalizer(CLAIMS, claim, CLAIM_PROTECTION) or claim
        if claims.phase(claim) == "Bound":
            await self._check_bound(claim)
            return
        class_name = await self._class_of(claim)
        volume = claims.best(claim, (await self.client.list(VOLUMES)).items, class_name)
        if volume is None:
            volume = await self._provision(claim, class_name)
        if volume is not None:
            await self._bind(claim, volume)

    async def _class_of(self, claim: JSONObject) -> str:
        """Return the class the claim is of; one without gets the default and remembers it."""
        given = claim["spec"].get("storageClassName")
        if given is not None:
            return str(given)
        name = claims.default_class(self._classes.list())
        if name:

            def edit(body: JSONObject) -> bool:
                if body["spec"].get("storageClassName") is not None:
                    return False
                body["spec"]["storageClassName"] = name
                return True

            metadata = claim["metadata"]
            await self.client.change(CLAIMS, metadata["name"], metadata["namespace"], edit)
        return name

    async def _provision(self, claim: JSONObject, class_name: str) -> JSONObject | None:
        """Make a volume for a claim, if its class is one of ours; otherwise say what it waits for."""
        if claim["spec"].get("volumeName"):
            self._tell(claim, WARNING, "FailedBinding", f'volume "{claim["spec"]["volumeName"]}" is not available')
            return None
        if not class_name:
            text = "no persistent volumes available for this claim and no storage class is set"
            self._tell(claim, NORMAL, "FailedBinding", text)
            return None
        found = await self.client.find(CLASSES, class_name)
        if found is None:
            text = f'storageclass.storage.k8s.io "{class_name}" not found'
            self._tell(claim, WARNING, "ProvisioningFailed", text)
            return None
        if found["provisioner"] != PROVISIONER:
            if found["provisioner"] != "kubernetes.io/no-provisioner":
                text = f"Waiting for a volume to be created by the external provisioner '{found['provisioner']}'"
                self._tell(claim, NORMAL, "ExternalProvisioning", text)
            return None
        if (claim["spec"].get("volumeMode") or "Filesystem") != "Filesystem":
            self._tell(
                claim, WARNING, "ProvisioningFailed", "local volumes are directories; volumeMode Block is not supported"
            )
            return None
        return await self._make(claim, found)

    async def _make(self, claim: JSONObject, storage_class: JSONObject) -> JSONObject:
        metadata = claim["metadata"]
        name = f"pvc-{metadata['uid']}"
        labels = {"kestrel.dev/claim": f"{metadata['namespace']}/{metadata['name']}"}
        try:
            made = await asyncio.to_thread(self._directories.ensure, name, size=int(claims.size(claim)), labels=labels)
        except (KestrelError, OSError) as error:
            self._tell(claim, WARNING, "ProvisioningFailed", f"failed to provision volume: {error}")
            raise
        self._hold(name)
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": name,
                "annotations": {PROVISIONED_BY: PROVISIONER},
                "finalizers": [VOLUME_PROTECTION],
            },
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
                "storageClassName": storage_class["metadata"]["name"],
                "volumeMode": "Filesystem",
                "hostPath": {"path": str(made.path), "type": "Directory"},
                "claimRef": _reference(claim),
            },
        }
        try:
            volume = await self.client.create(VOLUMES, body)
        except AlreadyExists:
            return await self.client.get(VOLUMES, name)
        self._tell(claim, NORMAL, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        return volume

    async def _bind(self, claim: JSONObject, volume: JSONObject) -> None:
        """Point volume and claim at each other. Each step may be repeated; the volume's comes first and decides."""
        name, metadata = volume["metadata"]["name"], claim["metadata"]

        def reserve(body: JSONObject) -> bool:
            if body["spec"].get("claimRef") and not claims.is_of(body, claim):
                raise Conflict(f"volume {name} was taken by another claim")
            changed = bool((body["spec"].get("claimRef") or {}).get("uid") != metadata["uid"])
            body["spec"]["claimRef"] = _reference(claim)
            return changed

        def point(body: JSONObject) -> bool:
            body["spec"]["volumeName"] = name
            body["metadata"]["annotations"] = (body["metadata"].get("annotations") or {}) | BOUND
            return True

        def bound_claim(body: JSONObject) -> bool:
            body["status"] = (body.get("status") or {}) | {
                "phase": "Bound",
                "accessModes": volume["spec"].get("accessModes") or [],
                "capacity": volume["spec"].get("capacity") or {},
            }
            return True

        await self.client.change(VOLUMES, name, "", reserve)
        await self._set_phase(name, "Bound")
        await self.client.change(CLAIMS, metadata["name"], metadata["namespace"], point)
        await self.client.change(CLAIMS, metadata["name"], metadata["namespace"], bound_claim, subresource="status")

    async def _check_bound(self, claim: JSONObject) -> None:
        """Notice a volume that has vanished, and let the volume grow with its claim."""
        name, metadata = str(claim["spec"].get("volumeName")), claim["metadata"]
        volume = await self.client.find(VOLUMES, name)
        if volume is None:
            self._tell(
                claim, WARNING, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            )
            await self.client.patch_status(CLAIMS, metadata["name"], {"phase": "Lost"}, metadata["namespace"])
            return
        wanted = claims.size(claim)
        if claims.capacity(volume) < wanted and _is_ours(volume):
            await self._grow(claim, name, wanted)

    async def _grow(self, claim: JSONObject, name: str, wanted: Fraction) -> None:
        text = quantity.formatted(wanted, binary=True)
        await asyncio.to_thread(self._directories.resize, name, int(wanted))
        await self.client.patch(VOLUMES, name, {"spec": {"capacity": {"storage": text}}})
        metadata = claim["metadata"]
        status = {"capacity": {"storage": text}}
        await self.client.patch_status(CLAIMS, metadata["name"], status, metadata["namespace"])
        self._tell(claim, NORMAL, "FileSystemResizeSuccessful", f"volume {name} has now {text}")

    # Volumes

    async def _volume(self, volume: JSONObject) -> None:
        name, reference = volume["metadata"]["name"], volume["spec"].get("claimRef")
        if _is_ours(volume):
            self._hold(name)
        if reference is None or not reference.get("uid"):
            if volume["metadata"].get("deletionTimestamp"):
                await self._drop_finalizer(VOLUMES, volume, VOLUME_PROTECTION)
            elif claims.phase(volume) != "Available":
                await self._set_phase(name, "Available")
            return
        claim = await self.client.find(CLAIMS, str(reference["name"]), str(reference["namespace"]))
        if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
            return
        await self._release(volume)

    def _hold(self, name: str) -> None:
        try:
            self._directories.hold(name, f"persistentvolume/{name}")
        except NotFound:
            return  # its data is gone; pods that want it are told so

    async def _release(self, volume: JSONObject) -> None:
        """Do what the reclaim policy says, now that the claim is gone."""
        name = volume["metadata"]["name"]
        if claims.phase(volume) != "Released":
            await self._set_phase(name, "Released")
        leaving = bool(volume["metadata"].get("deletionTimestamp"))
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete" and _is_ours(volume):
            try:
                await asyncio.to_thread(self._directories.remove, name, force=True)
            except NotFound:
                pass  # an earlier attempt came this far
            if not leaving:
                await self._delete(name)
            leaving = True
        if leaving:
            await self._drop_finalizer(VOLUMES, volume, VOLUME_PROTECTION)

    async def _delete(self, name: str) -> None:
        try:
            await self.client.delete(VOLUMES, name)
        except NotFound:
            return

    async def _set_phase(self, name: str, phase: str) -> None:
        def edit(body: JSONObject) -> bool:
            if claims.phase(body) == phase and body.get("status"):
                return False
            body["status"] = (body.get("status") or {}) | {"phase": phase}
            return True

        await self.client.change(VOLUMES, name, "", edit, subresource="status")

    # Small things

    async def _add_finalizer(self, resource: str, body: JSONObject, finalizer: str) -> JSONObject | None:
        def edit(found: JSONObject) -> bool:
            present = found["metadata"].get("finalizers") or []
            if finalizer in present or found["metadata"].get("deletionTimestamp"):
                return False
            found["metadata"]["finalizers"] = [*present, finalizer]
            return True

        metadata = body["metadata"]
        return await self.client.change(resource, metadata["name"], metadata.get("namespace", ""), edit)

    async def _drop_finalizer(self, resource: str, body: JSONObject, finalizer: str) -> None:
        def edit(found: JSONObject) -> bool:
            present = found["metadata"].get("finalizers") or []
            found["metadata"]["finalizers"] = [name for name in present if name != finalizer]
            return finalizer in present

        metadata = body["metadata"]
        await self.client.change(resource, metadata["name"], metadata.get("namespace", ""), edit)

    def _tell(self, claim: JSONObject, kind: str, reason: str, message: str) -> None:
        self._recorder.event(claim, kind, reason, message)


def _is_ours(volume: JSONObject) -> bool:
    return (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY) == PROVISIONER


def _reference(claim: JSONObject) -> JSONObject:
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
