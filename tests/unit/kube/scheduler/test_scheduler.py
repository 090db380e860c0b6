"""Binding over the real store and API server."""

import asyncio

import pytest

from kestrel.base.db import Database
from kestrel.kube.apiserver import ApiServer, TokenSigner
from kestrel.kube.client import Client
from kestrel.kube.scheduler import Scheduler
from kestrel.kube.store import SqliteStore


class World:
    def __init__(self, directory):
        self.database = Database(directory / "db")
        self.store = SqliteStore(self.database)
        self.api = ApiServer(self.store, TokenSigner.load_or_create(directory / "key"))
        self.client = Client(self.api.transport(), manager="test")
        self.scheduler = Scheduler(Client(self.api.transport(), manager="scheduler"))

    async def node(self, name="n1", cpu="2", **spec):
        await self.client.create(
            "nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
        )
        status = {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "110"}}
        await self.client.patch_status("nodes", name, status)

    async def pod(self, name, cpu="", **spec):
        resources = {"requests": {"cpu": cpu}} if cpu else {}
        container = {"name": "c", "image": "i", "resources": resources}
        body = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], **spec},
        }  # fmt: skip
        return await self.client.create("pods", body)

    async def until(self, name, condition):
        async with asyncio.timeout(3):
            while not condition(pod := await self.client.get("pods", name, "default")):  # noqa: ASYNC110 - polls the API
                await asyncio.sleep(0.005)
            return pod

    async def bound(self, name):
        return (await self.until(name, lambda pod: pod["spec"].get("nodeName")))["spec"]["nodeName"]

    async def refusal(self, name, word="available"):
        def refused(pod):
            return any(
                c["type"] == "PodScheduled" and word in c.get("message", "")
                for c in pod["status"].get("conditions", ())
            )

        pod = await self.until(name, refused)
        return next(c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")["message"]


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    client = world.client
    await client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "default"}}
    await client.create("serviceaccounts", account)
    await world.scheduler.start()
    yield world
    await world.scheduler.stop()
    await world.store.close()
    world.database.close()


async def test_a_pod_is_bound_and_an_event_says_so(world):
    await world.node()
    await world.pod("a")
    assert await world.bound("a") == "n1"
    async with asyncio.timeout(3):
        while not (events := (await world.client.list("events", "default")).items):  # told after the binding is seen
            await world.scheduler.settled()
            await asyncio.sleep(0.01)  # whoever tells it needs the loop
    assert [event["message"] for event in events] == ["Successfully assigned default/a to n1"]


async def test_pods_created_at_once_never_overfill_a_node(world):
    await world.node("n1", cpu="2")
    for number in range(5):
        await world.pod(f"p{number}", cpu="900m")
    await world.bound("p0")
    await world.bound("p1")
    assert await world.refusal("p4") == "0/1 nodes are available: 1 Insufficient cpu."
    pods = (await world.client.list("pods", "default")).items
    assert sum(1 for pod in pods if pod["spec"].get("nodeName")) == 2


async def test_a_waiting_pod_is_bound_when_another_leaves(world):
    await world.node()
    await world.pod("first", cpu="2")
    await world.bound("first")
    await world.pod("second", cpu="1")
    await world.refusal("second")
    await world.client.delete("pods", "first", "default", grace_seconds=0)
    assert await world.bound("second") == "n1"


async def test_a_waiting_pod_is_bound_when_a_node_comes(world):
    await world.pod("a")
    assert await world.refusal("a", "no nodes") == "no nodes available to schedule pods"
    await world.node()
    assert await world.bound("a") == "n1"


async def test_a_finished_pod_does_not_count(world):
    await world.node()
    await world.pod("first", cpu="2")
    await world.bound("first")
    await world.client.patch_status("pods", "first", {"phase": "Succeeded"}, "default")
    await world.pod("second", cpu="2")
    assert await world.bound("second") == "n1"


async def test_pods_spread_over_nodes(world):
    await world.node("n1")
    await world.node("n2")
    await world.pod("a", cpu="500m")
    await world.pod("b", cpu="500m")
    assert {await world.bound("a"), await world.bound("b")} == {"n1", "n2"}


async def test_a_pod_waits_for_its_claim(world):
    await world.node()
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    await world.pod("a", volumes=[claim])
    assert await world.refusal("a") == '0/1 nodes are available: persistentvolumeclaim "data" not found.'
    body = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v"},
    }  # fmt: skip
    await world.client.create("persistentvolumeclaims", body)
    assert await world.bound("a") == "n1"


async def test_a_pod_of_another_scheduler_is_left_alone(world):
    await world.node()
    await world.pod("theirs", schedulerName="custom")
    await world.pod("ours")
    await world.bound("ours")
    assert not (await world.client.get("pods", "theirs", "default"))["spec"].get("nodeName")
