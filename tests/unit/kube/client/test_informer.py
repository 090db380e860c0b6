"""Informers and recorders over a real API server in the same process."""

import asyncio

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, Conflict, NotFound
from kestrel.kube.apiserver import ApiServer, TokenSigner
from kestrel.kube.client import Change, Client, Informer, Recorder, is_expired
from kestrel.kube.store import SqliteStore


@pytest.fixture
async def client(tmp_path):
    database = Database(tmp_path / "kestrel.db")
    store = SqliteStore(database, volatile={"events": 3600.0}, window=32)
    api = ApiServer(store, TokenSigner.load_or_create(tmp_path / "key"))
    made = Client(api.transport(), manager="test")
    await made.create("namespaces", {"metadata": {"name": "default"}})
    yield made
    await store.close()
    database.close()


def config(name: str, **data: str):
    return {"metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "data": data}


async def _until(condition) -> None:
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not happen")


async def test_an_informer_follows_what_happens(client: Client) -> None:
    await client.create("configmaps", config("a"))
    seen: list[tuple[str, str]] = []
    async with Informer(client, "configmaps") as informer:
        informer.on_change(lambda change: seen.append((change.type, change.key[1])))
        assert seen == [("ADDED", "a")]
        b = await client.create("configmaps", config("b"))
        b["data"] = {"x": "y"}
        await client.update("configmaps", b)
        await client.delete("configmaps", "a", "default")
        await _until(lambda: len(seen) == 4)
        assert seen[1:] == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
        found = informer.get("b", "default")
        assert found is not None
        assert found["data"] == {"x": "y"}
        assert informer.list(labels={"app": "a"}) == []


async def test_an_informer_that_missed_events_reports_the_difference(client: Client) -> None:
    for name in ("kept", "changed", "gone"):
        await client.create("configmaps", config(name))
    informer = Informer(client, "configmaps")
    await informer.start()
    await informer.stop()
    changes: list[Change] = []
    await client.patch("configmaps", "changed", {"data": {"x": "y"}}, "default")
    await client.delete("configmaps", "gone", "default")
    await client.create("configmaps", config("new"))
    informer._handlers.append(changes.append)
    async with informer:
        await _until(lambda: len(changes) == 3)
    assert {(c.type, c.key[1]) for c in changes} == {("MODIFIED", "changed"), ("DELETED", "gone"), ("ADDED", "new")}


async def test_a_watch_from_too_long_ago_says_so(client: Client) -> None:
    version = (await client.list("configmaps")).resource_version
    for number in range(80):
        await client.create("configmaps", config(f"n{number}"))
    with pytest.raises(Exception, match="too old") as caught:
        await anext(client.watch("configmaps", resource_version=version))
    assert is_expired(caught.value)


async def test_errors_have_their_kinds(client: Client) -> None:
    made = await client.create("configmaps", config("a"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
        await client.create("configmaps", config("a"))
    with pytest.raises(NotFound, match='configmaps "b" not found'):
        await client.get("configmaps", "b", "default")
    await client.update("configmaps", {**made, "data": {"x": "1"}})
    with pytest.raises(Conflict, match="the object has been modified"):
        await client.update("configmaps", {**made, "data": {"x": "2"}})
    assert await client.find("configmaps", "b", "default") is None


async def test_change_tries_again_after_a_conflict(client: Client) -> None:
    await client.create("configmaps", config("a", count="0"))

    def count(body) -> None:
        body["data"]["count"] = str(int(body["data"]["count"]) + 1)

    await asyncio.gather(*(client.change("configmaps", "a", "default", count) for _ in range(8)))
    found = await client.get("configmaps", "a", "default")
    assert found["data"]["count"] == "8"


async def test_objects_of_get_are_the_callers_own(client: Client) -> None:
    await client.create("configmaps", config("a", x="1"))
    (await client.get("configmaps", "a", "default"))["data"]["x"] = "changed"
    assert (await client.get("configmaps", "a", "default"))["data"]["x"] == "1"


async def test_the_same_event_again_counts_and_many_alike_are_folded(client: Client) -> None:
    about = await client.create("configmaps", config("a"))
    async with Recorder(client, "tester", host="here") as recorder:
        for _ in range(3):
            recorder.event(about, "Warning", "BackOff", "back-off restarting")
        for number in range(15):
            recorder.event(about, "Normal", "Pulled", f"pulled {number}")
        recorder.event({**about, "metadata": {**about["metadata"], "uid": "x"}}, "Normal", "Other", "once")
        await recorder.flush()
    events = (await client.list("events", "default")).items
    by_reason: dict[str, list[int]] = {}
    for event in events:
        by_reason.setdefault(event["reason"], []).append(event["count"])
    assert by_reason["BackOff"] == [3]
    assert sorted(by_reason["Pulled"]) == [1] * 9 + [6]
    assert any(event["message"].startswith("(combined from similar events)") for event in events)
    assert by_reason["Other"] == [1]
    assert events[0]["involvedObject"]["kind"] == "ConfigMap"


async def test_a_loop_that_floods_events_is_held_back(client: Client) -> None:
    about = await client.create("configmaps", config("a"))
    async with Recorder(client, "tester") as recorder:
        for number in range(100):
            recorder.event(about, "Normal", f"Reason{number}", "again")
        await recorder.flush()
    assert len((await client.list("events", "default")).items) == 25
