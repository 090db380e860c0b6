"""Pushes, deletes, restores and collections of the same few things, in every order that can be thought of.

The collector and each push are taken step by step, so that any step of one can fall between any two of the others. A
model says what has been acknowledged; whatever was must be there and whole, whoever collected in between.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kestrel.base.db import Database
from kestrel.base.errors import NotFound
from kestrel.content import Store, Verdict, sweeping
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.registry import Repositories, SqliteMetadata
from kestrel.registry.repositories import MissingChildren

LAYERS = [b"layer %d" % number for number in range(3)]
CONFIG = b"{}"
REPOSITORIES = ["a", "b"]
TAGS = ["v1", "v2"]


def manifest(layer: bytes) -> bytes:
    config = Descriptor.of(media_types.OCI_CONFIG, CONFIG)
    return Manifest.of(config, [Descriptor.of(media_types.OCI_LAYER, layer)]).encode()


class Push:
    """One client: for each blob it looks whether it is there and else sends it, then it sends the manifest."""

    def __init__(self, repositories: Repositories, content: Store, repository: str, tag: str, layer: bytes) -> None:
        self.repositories, self.content = repositories, content
        self.repository, self.tag, self.layer = repository, tag, layer
        self.steps = self._run()

    def _run(self) -> Iterator[None]:
        for data in (CONFIG, self.layer):
            digest = Digest.of(data)
            if self.repositories.has_blob(self.repository, digest) is None:
                yield
                with self.content.lease():
                    self.content.put(data)
                    yield  # the collector may come between the file and its row
                    self.repositories.add_blob(self.repository, digest)
            yield
        data = manifest(self.layer)
        self.repositories.put_manifest(self.repository, Digest.of(data), media_types.OCI_MANIFEST, data, [self.tag])


class Interleavings(RuleBasedStateMachine):
    """Times are short: what nothing names is garbage at once, but for the minute that a push takes."""

    @initialize()
    def begin(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ktest-")
        root = Path(self._directory.name)
        self.database = Database(root / "kestrel.db")
        self.database._connection.execute("PRAGMA synchronous=OFF")
        self.content = Store(root, self.database)
        self.repositories = Repositories(SqliteMetadata(self.database), self.content)
        self.pushes: list[Push] = []
        self.collections: list[Iterator[Verdict]] = []
        self.tags: dict[tuple[str, str], bytes] = {}
        self.deleted: set[tuple[str, bytes]] = set()

    def teardown(self) -> None:
        for push in self.pushes:
            push.steps.close()  # type: ignore[attr-defined]
        for collection in self.collections:
            collection.close()  # type: ignore[attr-defined]
        self.database.close()
        self._directory.cleanup()

    @precondition(lambda self: len(self.pushes) < 3)
    @rule(repository=st.sampled_from(REPOSITORIES), tag=st.sampled_from(TAGS), layer=st.sampled_from(LAYERS))
    def push_begins(self, repository: str, tag: str, layer: bytes) -> None:
        self.pushes.append(Push(self.repositories, self.content, repository, tag, layer))

    @precondition(lambda self: self.pushes)
    @rule(which=st.integers(0, 2), steps=st.integers(1, 8))
    def push_goes_on(self, which: int, steps: int) -> None:
        push = self.pushes[which % len(self.pushes)]
        try:
            for _ in range(steps):
                next(push.steps)
        except StopIteration:
            self.pushes.remove(push)
            self.tags[push.repository, push.tag] = push.layer
            self.deleted.discard((push.repository, push.layer))
        except MissingChildren as error:
            raise AssertionError(f"a client was told that {error.digests} exist") from error

    @rule()
    def old_links_grow_old(self) -> None:
        """What no push under way has touched since is a day old now."""
        under_way = {Digest.of(data) for push in self.pushes for data in (CONFIG, push.layer)}
        rows = self.database.query("SELECT DISTINCT digest FROM registry_blob")
        old = [row["digest"] for row in rows if row["digest"] not in under_way]
        for digest in old:
            self.database.execute("UPDATE registry_blob SET moment = 0 WHERE digest = ?", (digest,))

    @rule(repository=st.sampled_from(REPOSITORIES), layer=st.sampled_from(LAYERS))
    def manifest_is_deleted(self, repository: str, layer: bytes) -> None:
        if self.repositories.delete_manifest(repository, Digest.of(manifest(layer))):
            self.tags = {k: v for k, v in self.tags.items() if (k[0], v) != (repository, layer)}
            self.deleted.add((repository, layer))

    @rule(repository=st.sampled_from(REPOSITORIES), tag=st.sampled_from(TAGS))
    def tag_is_deleted(self, repository: str, tag: str) -> None:
        assert self.repositories.delete_tag(repository, tag) is ((repository, tag) in self.tags)
        self.tags.pop((repository, tag), None)

    @rule(repository=st.sampled_from(REPOSITORIES), layer=st.sampled_from(LAYERS))
    def blob_is_deleted_that_no_push_needs(self, repository: str, layer: bytes) -> None:
        if not any(push.layer == layer for push in self.pushes):
            self.repositories.remove_blob(repository, Digest.of(layer))

    @precondition(lambda self: self.deleted)
    @rule(data=st.data())
    def manifest_is_restored(self, data: st.DataObject) -> None:
        repository, layer = data.draw(st.sampled_from(sorted(self.deleted)))
        gone = self.repositories.restore(repository, Digest.of(manifest(layer)))
        self.deleted.discard((repository, layer))
        for tag in gone.tags:
            self.tags.setdefault((repository, tag), layer)

    @rule()
    def undo_window_ends(self) -> None:
        self.database.execute("UPDATE registry_gone SET moment = 0")
        self.deleted.clear()

    @precondition(lambda self: len(self.collections) < 2)
    @rule()
    def collection_begins(self) -> None:
        self.collections.append(iter(sweeping(self.content, [self.repositories])))

    @precondition(lambda self: self.collections)
    @rule(which=st.integers(0, 1), steps=st.integers(1, 12))
    def collection_goes_on(self, which: int, steps: int) -> None:
        collection = self.collections[which % len(self.collections)]
        for _ in range(steps):
            if next(collection, None) is None:
                self.collections.remove(collection)
                break

    @invariant()
    def what_was_acknowledged_is_there_and_whole(self) -> None:
        if not hasattr(self, "tags"):
            return
        for (repository, tag), layer in self.tags.items():
            stored = self.repositories.manifest(repository, tag)
            assert stored is not None, f"{repository}:{tag} is gone"
            assert stored.data == manifest(layer)
            for data in (CONFIG, layer):
                assert self.content.read(Digest.of(data)) == data
        for path in (self.content.root / "blobs/sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    @invariant()
    def what_was_deleted_can_be_restored(self) -> None:
        for _, layer in getattr(self, "deleted", ()):
            for data in (CONFIG, layer, manifest(layer)):
                assert self.content.read(Digest.of(data)) == data


Interleavings.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestInterleavings = Interleavings.TestCase


def test_pushes_take_up_what_a_collector_was_about_to_remove() -> None:
    """It has asked who needs them, and nobody did; then they are needed."""
    machine = Interleavings()
    machine.begin()
    try:
        garbage = [CONFIG, *LAYERS, *(manifest(layer) for layer in LAYERS)]
        for data in garbage:
            machine.content.put(data)
        collection = sweeping(machine.content, [machine.repositories])
        assert next(collection).removed
        for layer in LAYERS:
            for _ in Push(machine.repositories, machine.content, "a", layer.decode().replace(" ", "-"), layer).steps:
                pass
            machine.tags["a", layer.decode().replace(" ", "-")] = layer
        assert all("transfer under way" in verdict.reason for verdict in collection)
        machine.what_was_acknowledged_is_there_and_whole()
    finally:
        machine.teardown()


def test_the_model_itself_notices_a_loss() -> None:
    """See it fail: a collector that asks nobody is caught."""
    machine = Interleavings()
    machine.begin()
    try:
        machine.push_begins("a", "v1", LAYERS[0])
        push = machine.pushes[0]
        for _ in push.steps:
            pass
        machine.tags["a", "v1"] = LAYERS[0]
        machine.what_was_acknowledged_is_there_and_whole()
        machine.content.delete(Digest.of(LAYERS[0]))
        try:
            machine.what_was_acknowledged_is_there_and_whole()
        except NotFound:
            return
        raise AssertionError("the loss was not noticed")
    finally:
        machine.pushes.clear()
        machine.teardown()
