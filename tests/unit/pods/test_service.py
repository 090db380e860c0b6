"""Pods found by their labels over an engine in memory."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from kestrel.base.bus import Bus
from kestrel.base.errors import NotFound
from kestrel.engine.model import (
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    Sandbox,
    SandboxConfig,
    SandboxState,
)
from kestrel.pods import Attempt, PodService
from kestrel.pods.model import ATTEMPT, POD_NAME, POD_NAMESPACE, POD_UID, SANDBOX_ATTEMPT

NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Engine:
    """As much of an engine as pods use."""

    def __init__(self):
        self.events = Bus()
        self.known, self.boxes = {}, {}

    def sandboxes(self):
        return list(self.boxes.values())

    def containers(self):
        return list(self.known.values())

    def sandbox(self, identity):
        return self._get(self.boxes, identity)

    def container(self, wanted):
        return self._get(self.known, wanted)

    def _get(self, table, identity):
        if identity not in table:
            raise NotFound(identity)
        return table[identity]

    async def create_sandbox(self, config):
        made = Sandbox(
            id=f"s{len(self.boxes)}", config=config, state=SandboxState.READY, created=NOW, address="10.0.0.2"
        )
        self.boxes[made.id] = made
        return made

    async def stop_sandbox(self, identity):
        self.boxes[identity] = replace(self.sandbox(identity), state=SandboxState.STOPPED, reason="asked")

    async def remove_sandbox(self, identity):
        self.sandbox(identity)
        del self.boxes[identity]

    async def create(self, config):
        made = Container(
            id=f"c{len(self.known)}", config=config, sandbox=config.sandbox, image_id="i", image_digest="d",
            state=ContainerState.CREATED, created=NOW, log_path=config.log_path,
        )  # fmt: skip
        self.events.publish(ContainerEvent(action="create", sandbox=made.sandbox, container=made.id, moment=NOW))
        self.known[made.id] = made
        return made

    async def start(self, wanted):
        self.known[wanted] = replace(self.container(wanted), state=ContainerState.RUNNING, started=NOW)
        return self.known[wanted]

    async def stop(self, wanted, *, timeout=None):  # noqa: ARG002 - as the engine has it
        return self.container(wanted)

    async def remove(self, wanted, *, force=False):  # noqa: ARG002 - as the engine has it
        self.container(wanted)
        del self.known[wanted]

    async def exec_sync(self, wanted, config, *, timeout, limit=0):  # noqa: ARG002 - as the engine has it
        return SimpleNamespace(exit_code=3, stdout=" ".join(config.command).encode(), stderr=b"")


class Images:
    async def resolve(self, name):
        if name != "here":
            raise NotFound(name)
        defaults = SimpleNamespace(user=None, stop_signal="SIGINT")
        return SimpleNamespace(id="i", digest="d", names=["here"], size=5, config=SimpleNamespace(config=defaults))


def box(uid="u1", attempt=0):
    labels = {POD_UID: uid, POD_NAME: "web", POD_NAMESPACE: "default"}
    return SandboxConfig(name=f"{uid}-{attempt}", labels=labels, annotations={SANDBOX_ATTEMPT: str(attempt)})


def container(sandbox, uid="u1", number=0):
    attempt = Attempt(uid=uid, pod="web", namespace="default", container="app", number=number)
    return ContainerConfig(
        name=attempt.engine_name,
        image="here",
        sandbox=sandbox,
        labels=attempt.labels,
        annotations={ATTEMPT: str(number)},
    )


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def pods(engine):
    return PodService(engine, Images())


async def test_a_pods_record_has_its_newest_sandbox_and_container_first(pods):
    old = await pods.run_sandbox(box())
    await pods.create_container(container(old.id))
    await pods.stop_sandbox(old.id)
    new = await pods.run_sandbox(box(attempt=1))
    made = await pods.create_container(container(new.id, number=1))
    await pods.start_container(made.id)
    record = pods.pod("u1")
    assert (record.name, record.namespace) == ("web", "default")
    assert record.sandbox == new
    assert [c.attempt for c in record.attempts("app")] == [1, 0]
    assert record.newest("app").running
    assert not pods.pod("other")


async def test_pods_are_found_again_after_a_restart(pods, engine):
    sandbox = await pods.run_sandbox(box())
    await pods.create_container(container(sandbox.id))
    again = PodService(engine, Images())
    again.load()
    assert again.pods() == pods.pods()


async def test_containers_that_are_no_pods_are_not_ours(engine, pods):
    await engine.create_sandbox(SandboxConfig(name="docker"))
    await engine.create(ContainerConfig(name="docker", image="here", sandbox="s0"))
    pods.load()
    assert pods.pods() == []


async def test_stopping_and_removing_what_is_gone_succeeds(pods):
    await pods.stop_sandbox("none")
    await pods.remove_sandbox("none")
    await pods.stop_container("none", grace=1)
    await pods.remove_container("none")


async def test_what_was_removed_behind_our_back_is_forgotten(pods, engine):
    sandbox = await pods.run_sandbox(box())
    made = await pods.create_container(container(sandbox.id))
    await engine.remove(made.id)
    await engine.remove_sandbox(sandbox.id)
    assert not pods.pod("u1")
    assert pods.pods() == []


async def test_events_name_the_pod_and_leave_others_out(pods, engine):
    sandbox = await pods.run_sandbox(box())
    made = await pods.create_container(container(sandbox.id))
    stream = pods.events()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    engine.events.publish(ContainerEvent(action="exit", sandbox="x", container="foreign", moment=NOW))
    engine.events.publish(ContainerEvent(action="exit", sandbox=sandbox.id, container=made.id, moment=NOW))
    event = await waiting
    assert (event.uid, event.action, event.container) == ("u1", "exit", made.id)
    await stream.aclose()


async def test_an_absent_image_is_none_and_a_present_one_tells_what_pods_need(pods):
    assert await pods.image("elsewhere") is None
    found = await pods.image("here")
    assert (found.id, found.user, found.stop_signal, found.size) == ("i", "", "SIGINT", 5)


async def test_exec_sync_gives_code_and_output(pods):
    sandbox = await pods.run_sandbox(box())
    made = await pods.create_container(container(sandbox.id))
    assert await pods.exec_sync(made.id, ["a", "b"], timeout=1) == (3, b"a b", b"")
