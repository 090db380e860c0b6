"""The control loops over the real store and API server, with real directories for volumes."""

import asyncio
from pathlib import Path

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import Conflict, PermissionDenied
from kestrel.kube.apiserver import ApiServer, TokenSigner
from kestrel.kube.client import Client
from kestrel.kube.controllers import Accounts, Controllers, Garbage, Namespaces, Storage
from kestrel.kube.store import SqliteStore
from kestrel.volumes import VolumeService

CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"


class World:
    def __init__(self, directory):
        self.database = Database(directory / "db")
        self.store = SqliteStore(self.database)
        self.api = ApiServer(self.store, TokenSigner.load_or_create(directory / "key"))
        self.client = Client(self.api.transport(), manager="test")
        self.directories = VolumeService(directory / "volumes", self.database)
        own = Client(self.api.transport(), manager="controllers")
        self.controllers = Controllers(
            [Namespaces(own), Accounts(own, "PEM"), Storage(own, self.directories), Garbage(own)]
        )

    async def make(self, resource, kind, name, namespace="default", metadata=None, version="v1", **fields):
        place = {"namespace": namespace} if namespace else {}
        meta = {"name": name, **place, **(metadata or {})}
        return await self.client.create(resource, {"apiVersion": version, "kind": kind, "metadata": meta, **fields})

    async def claim(self, name="data", size="1Gi", modes=("ReadWriteOnce",), **spec):
        wanted = {"accessModes": list(modes), "resources": {"requests": {"storage": size}}, **spec}
        return await self.make(CLAIMS, "PersistentVolumeClaim", name, spec=wanted)

    async def volume(self, name, size="1Gi", policy="Retain", storage_class="manual", **spec):
        wanted = {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
            "persistentVolumeReclaimPolicy": policy, "storageClassName": storage_class, **spec,
        }  # fmt: skip
        return await self.make(VOLUMES, "PersistentVolume", name, "", spec=wanted)

    async def until(self, resource, name, condition, namespace="default"):
        async with asyncio.timeout(4):
            while not condition(found := await self.client.find(resource, name, namespace)):  # noqa: ASYNC110 - polls the API
                await asyncio.sleep(0.005)
            return found

    async def phase(self, resource, name, wanted):
        place = "" if resource == VOLUMES else "default"
        return await self.until(resource, name, lambda b: b and b.get("status", {}).get("phase") == wanted, place)

    async def gone(self, resource, name, namespace="default"):
        await self.until(resource, name, lambda body: body is None, namespace)


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.controllers.start()
    await world.until("serviceaccounts", "default", lambda body: body is not None)
    yield world
    await world.controllers.stop()
    await world.store.close()
    world.database.close()


async def test_every_namespace_gets_its_account_and_roots_and_they_come_back(world):
    await world.make("namespaces", "Namespace", "team", "")
    await world.until("serviceaccounts", "default", lambda body: body is not None, "team")
    roots = await world.until("configmaps", "kube-root-ca.crt", lambda body: body is not None, "team")
    assert roots["data"] == {"ca.crt": "PEM"}
    await world.client.delete("serviceaccounts", "default", "team")
    await world.until("serviceaccounts", "default", lambda body: body is not None, "team")
    await world.client.patch("configmaps", "kube-root-ca.crt", {"data": {"ca.crt": "x"}}, "team")
    await world.until("configmaps", "kube-root-ca.crt", lambda body: body["data"] == {"ca.crt": "PEM"}, "team")


async def test_the_platforms_namespaces_are_there(world):
    names = {body["metadata"]["name"] for body in (await world.client.list("namespaces")).items}
    assert names == {"default", "kube-system", "kube-public", "kube-node-lease"}


async def test_a_deleted_namespace_is_emptied_first(world):
    await world.make("namespaces", "Namespace", "team", "")
    await world.until("serviceaccounts", "default", lambda body: body is not None, "team")
    await world.make("configmaps", "ConfigMap", "a", "team")
    held = {"finalizers": ["example.com/wait"]}
    await world.make("secrets", "Secret", "b", "team", held)
    await world.client.delete("namespaces", "team")

    def says_why(body):
        conditions = {c["type"]: c for c in body["status"].get("conditions", ())}
        return "secrets. has 1 resource instances" in conditions.get("NamespaceContentRemaining", {}).get("message", "")

    await world.until("namespaces", "team", says_why, "")
    await world.gone("configmaps", "a", "team")
    with pytest.raises((PermissionDenied, Conflict)):
        await world.make("configmaps", "ConfigMap", "late", "team")
    await world.client.patch("secrets", "b", {"metadata": {"finalizers": None}}, "team")
    await world.gone("namespaces", "team", "")


async def test_a_claim_gets_a_local_volume_of_its_own(world):
    await world.claim()
    claim = await world.phase(CLAIMS, "data", "Bound")
    assert claim["spec"]["storageClassName"] == "local"
    assert claim["status"]["capacity"] == {"storage": "1Gi"}
    assert claim["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    volume = await world.phase(VOLUMES, claim["spec"]["volumeName"], "Bound")
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    path = Path(volume["spec"]["hostPath"]["path"])
    assert path.is_dir()
    assert world.directories.prune() == []
    await world.client.delete(CLAIMS, "data", "default")
    await world.gone(CLAIMS, "data")
    await world.gone(VOLUMES, claim["spec"]["volumeName"], "")
    assert not path.exists()


async def test_a_claim_in_use_is_not_deleted_until_its_pod_ends(world):
    await world.claim()
    await world.phase(CLAIMS, "data", "Bound")
    container = {"name": "c", "image": "i"}
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    await world.make("pods", "Pod", "user", spec={"containers": [container], "volumes": volumes})
    await world.client.delete(CLAIMS, "data", "default")
    await asyncio.sleep(0.1)
    assert (await world.client.get(CLAIMS, "data", "default"))["metadata"]["deletionTimestamp"]
    await world.client.delete("pods", "user", "default", grace_seconds=0)
    await world.gone(CLAIMS, "data")


async def test_a_kept_volume_is_released_with_its_data(world):
    storage = {"provisioner": "kestrel.dev/local", "reclaimPolicy": "Retain"}
    await world.make(
        "storageclasses.storage.k8s.io", "StorageClass", "keep", "", version="storage.k8s.io/v1", **storage
    )
    await world.claim(storageClassName="keep")
    claim = await world.phase(CLAIMS, "data", "Bound")
    await world.client.delete(CLAIMS, "data", "default")
    volume = await world.phase(VOLUMES, claim["spec"]["volumeName"], "Released")
    assert Path(volume["spec"]["hostPath"]["path"]).is_dir()


async def test_the_smallest_volume_that_suits_is_taken(world):
    await world.volume("big", "10Gi")
    await world.volume("fit", "2Gi")
    await world.volume("small", "1Gi")
    await world.volume("other", "2Gi", storage_class="else")
    await world.phase(VOLUMES, "fit", "Available")
    await world.claim(size="2Gi", storageClassName="manual")
    claim = await world.phase(CLAIMS, "data", "Bound")
    assert claim["spec"]["volumeName"] == "fit"
    assert claim["status"]["capacity"] == {"storage": "2Gi"}


async def test_a_claim_without_class_waits_for_a_volume(world):
    await world.claim(storageClassName="")
    await asyncio.sleep(0.1)
    assert (await world.client.get(CLAIMS, "data", "default"))["status"]["phase"] == "Pending"
    await world.volume("late", storage_class="")
    await world.phase(CLAIMS, "data", "Bound")


async def test_an_unknown_class_is_said(world):
    await world.claim(storageClassName="fast")
    async with asyncio.timeout(3):
        while not (events := (await world.client.list("events", "default")).items):  # noqa: ASYNC110 - polls the API
            await asyncio.sleep(0.01)
    assert events[0]["message"] == 'storageclass.storage.k8s.io "fast" not found'


async def test_a_claim_grows(world):
    await world.claim()
    await world.phase(CLAIMS, "data", "Bound")
    larger = {"spec": {"resources": {"requests": {"storage": "3Gi"}}}}
    await world.client.patch(CLAIMS, "data", larger, "default")
    claim = await world.until(CLAIMS, "data", lambda body: body["status"]["capacity"] == {"storage": "3Gi"})
    assert world.directories.get(claim["spec"]["volumeName"]).size == 3 * 2**30


def owned_by(owner, **more):
    reference = {"apiVersion": "v1", "kind": owner["kind"], "name": owner["metadata"]["name"], **more}
    return {"ownerReferences": [reference | {"uid": owner["metadata"]["uid"]}]}


async def test_what_has_lost_its_owner_is_deleted(world):
    owner = await world.make("configmaps", "ConfigMap", "owner")
    child = await world.make("secrets", "Secret", "child", metadata=owned_by(owner))
    await world.make("configmaps", "ConfigMap", "grandchild", metadata=owned_by(child))
    await asyncio.sleep(0.05)
    assert await world.client.find("secrets", "child", "default") is not None
    await world.client.delete("configmaps", "owner", "default")
    await world.gone("secrets", "child")
    await world.gone("configmaps", "grandchild")


async def test_an_owner_of_the_same_name_but_another_identity_is_no_owner(world):
    owner = await world.make("configmaps", "ConfigMap", "owner")
    owner["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    await world.make("secrets", "Secret", "child", metadata=owned_by(owner))
    await world.gone("secrets", "child")


async def test_foreground_deletion_waits_for_what_blocks_it(world):
    owner = await world.make("configmaps", "ConfigMap", "owner")
    metadata = owned_by(owner, blockOwnerDeletion=True) | {"finalizers": ["example.com/wait"]}
    await world.make("secrets", "Secret", "child", metadata=metadata)
    await world.client.delete("configmaps", "owner", "default", propagation="Foreground")
    await world.until("secrets", "child", lambda body: body["metadata"].get("deletionTimestamp"))
    assert await world.client.find("configmaps", "owner", "default") is not None
    await world.client.patch("secrets", "child", {"metadata": {"finalizers": None}}, "default")
    await world.gone("configmaps", "owner")


async def test_orphans_are_kept_without_their_owner(world):
    owner = await world.make("configmaps", "ConfigMap", "owner")
    await world.make("secrets", "Secret", "child", metadata=owned_by(owner))
    await world.client.delete("configmaps", "owner", "default", propagation="Orphan")
    await world.gone("configmaps", "owner")
    child = await world.client.get("secrets", "child", "default")
    assert not child["metadata"].get("ownerReferences")


async def test_pods_of_a_node_that_is_gone_are_removed(world):
    await world.make("nodes", "Node", "n1", "")
    await world.make("pods", "Pod", "p", spec={"containers": [{"name": "c", "image": "i"}], "nodeName": "n1"})
    await world.client.delete("nodes", "n1")
    await world.gone("pods", "p")
