"""What every `ObjectStore` must do: subclass `ObjectStoreSuite` and say how a store is opened.

    class TestSqliteStore(ObjectStoreSuite):
        def open(self, directory): ...

`open` may be called again on the same directory after `close`, as a restart does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from kestrel.base.errors import KestrelError
from kestrel.kube.client import is_expired
from kestrel.kube.store import Exists, Key, Missing, ObjectStore, Record, Stale

VOLATILE = "events"
WINDOW = 64
"""Changes the store under test must remember, and no more than four times as many."""


class ClosableStore(ObjectStore, Protocol):
    """A store with an end."""

    async def close(self) -> None:
        """Finish and stop."""
        ...


def thing(name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    """Return a small object."""
    return {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": name, "namespace": namespace}, **more}


def key(name: str, namespace: str = "default", resource: str = "things") -> Key:
    """Return where a small object lives."""
    return Key(resource, namespace, name)


async def put(store: ObjectStore, name: str, namespace: str = "default", **more: Any) -> Record:
    """Create a small object."""
    return await store.create(key(name, namespace), thing(name, namespace, **more))


class ObjectStoreSuite:
    """Tests of the promises in `kestrel.kube.store.store`."""

    async def open(self, directory: Path) -> ClosableStore:
        """Open the store of a directory, with a window of WINDOW changes and VOLATILE in memory only."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, directory: Path) -> AsyncIterator[ClosableStore]:
        """Open and close."""
        store = await self.open(directory)
        try:
            yield store
        finally:
            await store.close()

    async def test_what_was_created_is_read_with_its_version(self, tmp_path: Path) -> None:
        """Create, get and list agree."""
        async with self.opened(tmp_path) as store:
            made = await put(store, "a", spec={"x": [1, 2]})
            assert store.get(key("a")) is made
            assert made.copy() == thing("a", spec={"x": [1, 2]}) | {
                "metadata": {"name": "a", "namespace": "default", "resourceVersion": str(made.version)}
            }
            assert store.version == made.version
            assert store.list("things").records == [made]

    async def test_versions_grow_with_every_change_of_anything(self, tmp_path: Path) -> None:
        """One counter for all resources, deletes included."""
        async with self.opened(tmp_path) as store:
            a = await put(store, "a")
            b = await store.create(key("b", resource="others"), thing("b"))
            c = await store.update(key("a"), thing("a", spec=1), expected=a.version)
            d = await store.delete(key("b", resource="others"), expected=b.version)
            assert a.version < b.version < c.version < d.version == store.version

    async def test_a_name_is_taken_once(self, tmp_path: Path) -> None:
        """Also when two ask at the same time."""
        async with self.opened(tmp_path) as store:
            answers = await asyncio.gather(put(store, "a"), put(store, "a"), return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Exists", "Record"]
            with pytest.raises(Exists):
                await put(store, "a")

    async def test_an_update_of_an_older_version_is_stale(self, tmp_path: Path) -> None:
        """Of two writers who read the same version one wins."""
        async with self.opened(tmp_path) as store:
            made = await put(store, "a")
            writes = [store.update(key("a"), thing("a", spec=n), expected=made.version) for n in range(5)]
            answers = await asyncio.gather(*writes, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Record"] + ["Stale"] * 4
            with pytest.raises(Stale):
                await store.delete(key("a"), expected=made.version)
            with pytest.raises(Missing):
                await store.update(key("b"), thing("b"), expected=made.version)

    async def test_an_update_that_changes_nothing_is_no_change(self, tmp_path: Path) -> None:
        """No new version, no event."""
        async with self.opened(tmp_path) as store:
            made = await put(store, "a", spec=1)
            assert await store.update(key("a"), thing("a", spec=1), expected=made.version) is made
            assert store.version == made.version

    async def test_lists_are_in_order_and_by_namespace(self, tmp_path: Path) -> None:
        """Key order: namespace, then name."""
        async with self.opened(tmp_path) as store:
            for namespace, name in [("b", "x"), ("a", "z"), ("ab", "m"), ("a", "y")]:
                await put(store, name, namespace)
            found = [(r.key.namespace, r.key.name) for r in store.list("things").records]
            assert found == [("a", "y"), ("a", "z"), ("ab", "m"), ("b", "x")]
            assert [r.key.name for r in store.list("things", "a").records] == ["y", "z"]

    async def test_pages_of_one_moment_agree_whatever_happens_between(self, tmp_path: Path) -> None:
        """A list that goes on at its version does not see later changes."""
        async with self.opened(tmp_path) as store:
            records = [await put(store, f"n{n}") for n in range(6)]
            first = store.list("things", limit=2)
            assert (first.rest, first.after) == (4, records[1].key)
            await store.delete(key("n2"), expected=records[2].version)
            await store.update(key("n3"), thing("n3", spec=1), expected=records[3].version)
            await put(store, "n21")
            second = store.list("things", limit=3, after=first.after, version=first.version)
            assert [r.data for r in second.records] == [r.data for r in records[2:5]]
            third = store.list("things", after=second.after, version=first.version)
            assert third.records == records[5:]
            assert third.after is None

    async def test_a_moment_too_long_ago_is_expired(self, tmp_path: Path) -> None:
        """Lists and watches alike get a 410."""
        async with self.opened(tmp_path) as store:
            version = (await put(store, "first")).version
            for number in range(4 * WINDOW + 1):
                await put(store, f"n{number}")
            for ask in (lambda: store.list("things", version=version), lambda: store.watch("things", since=version)):
                with pytest.raises(KestrelError) as caught:
                    ask()
                assert is_expired(caught.value)

    async def test_a_watch_gives_every_later_change_once_in_order(self, tmp_path: Path) -> None:
        """Those that came before it was opened, and those after."""
        async with self.opened(tmp_path) as store:
            since = store.version
            a = await put(store, "a")
            watch = store.watch("things", since=since)
            b = await store.update(key("a"), thing("a", spec=1), expected=a.version)
            await store.create(key("other", resource="others"), thing("other"))
            await store.delete(key("a"), expected=b.version)
            seen = await _take(watch, 3)
            assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
            assert [change.version for _, change in seen] == sorted(change.version for _, change in seen)
            assert watch.version == store.version
            watch.close()

    async def test_a_watch_with_a_selector_sees_objects_come_and_go(self, tmp_path: Path) -> None:
        """An object that begins to match is ADDED, one that ceases to is DELETED as it last matched."""
        async with self.opened(tmp_path) as store:
            watch = store.watch("things", since=store.version, match=lambda r: r.object.get("spec") == 1)
            a = await put(store, "a", spec=0)
            b = await store.update(key("a"), thing("a", spec=1), expected=a.version)
            c = await store.update(key("a"), thing("a", spec=2), expected=b.version)
            await store.delete(key("a"), expected=c.version)
            seen = await _take(watch, 2)
            assert [kind for kind, _ in seen] == ["ADDED", "DELETED"]
            shown = seen[1][1].shown("DELETED")
            assert (shown.object["spec"], shown.version) == (1, c.version)
            watch.close()

    async def test_a_watch_of_one_namespace_or_name_hears_of_nothing_else(self, tmp_path: Path) -> None:
        """Both narrow what comes."""
        async with self.opened(tmp_path) as store:
            one = store.watch("things", "a", since=store.version)
            other = store.watch("things", "a", since=store.version, name="y")
            for namespace, name in [("b", "x"), ("a", "x"), ("a", "y")]:
                await put(store, name, namespace)
            assert [c.record.key.name for _, c in await _take(one, 2)] == ["x", "y"]
            assert [c.record.key.name for _, c in await _take(other, 1)] == ["y"]
            one.close()
            other.close()

    async def test_a_closed_watch_wakes_its_reader(self, tmp_path: Path) -> None:
        """With nothing in hand."""
        async with self.opened(tmp_path) as store:
            watch = store.watch("things", since=store.version)
            reader = asyncio.create_task(watch.batch())
            await asyncio.sleep(0)
            watch.close()
            assert await reader == []

    async def test_a_restart_keeps_objects_and_never_goes_back(self, tmp_path: Path) -> None:
        """Versions go on above all that were ever given; old watches are expired; volatile things are gone."""
        async with self.opened(tmp_path) as store:
            made = await put(store, "a", spec={"text": "ä"})
            for number in range(10):
                await store.create(key(f"e{number}", resource=VOLATILE), thing(f"e{number}"))
            last = store.version
        async with self.opened(tmp_path) as store:
            again = store.get(key("a"))
            assert again is not None
            assert again.data == made.data
            assert store.list(VOLATILE).records == []
            with pytest.raises(KestrelError) as caught:
                store.watch("things", since=last)
            assert is_expired(caught.value)
            assert (await put(store, "b")).version > last

    async def test_a_writer_that_is_cancelled_leaves_nothing_half_done(self, tmp_path: Path) -> None:
        """Its write happens or not; the key is free for the next."""
        async with self.opened(tmp_path) as store:
            task = asyncio.create_task(put(store, "a"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            with pytest.raises(Exists):
                await put(store, "a")
            assert store.get(key("a")) is not None


async def _take(watch: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += await asyncio.wait_for(watch.batch(), 5)
    return found
