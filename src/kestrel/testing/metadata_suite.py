# ruff: noqa: D102 - the name of a test is its sentence
"""What every backend of the registry's metadata has to do: a second one is done when it passes.

class TestSqlite(MetadataSuite):
    @pytest.fixture
    def metadata(self, tmp_path): ...
"""

import threading

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.registry.metadata import Gone, Metadata, Record, TagRule, UpstreamRule

ONE, TWO, LAYER = Digest.of(b"one"), Digest.of(b"two"), Digest.of(b"layer")
FOREVER = 1e12


def record(digest: Digest, *references: Digest, subject: str = "") -> Record:
    """Return a manifest of 3 bytes that names some things."""
    descriptor = Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest, size=3, annotations={"a": "b"})
    return Record(descriptor=descriptor, references=references, subject=subject)


def allow(tag: str, current: "Digest | None", wanted: "Digest | None") -> None:
    """Let every change happen."""


def refuse(tag: str, current: "Digest | None", wanted: "Digest | None") -> None:
    """Let none."""
    raise FailedPrecondition(f"{tag} is {current} and shall not be {wanted}")


class MetadataSuite:
    """Give it a fixture `metadata`: an empty backend."""

    def put(self, metadata: Metadata, digest: Digest, *tags: str, moment: float = 1.0, actor: str = "") -> None:
        """Record a manifest that names LAYER, in the repository `a`."""
        tagged = dict.fromkeys(tags, digest)
        metadata.record("a", [record(digest, LAYER)], tagged, moment, actor=actor, guard=allow)

    def test_a_blob_is_shown_where_it_was_shown_until_it_is_hidden(self, metadata: Metadata) -> None:
        metadata.show("a", [ONE, TWO], 1.0)
        metadata.show("a", [ONE], 2.0)
        assert metadata.shown("a", [ONE, TWO, LAYER]) == {ONE: 2.0, TWO: 1.0}
        assert metadata.shown("b", [ONE]) == {}
        assert metadata.shown_in(ONE) == ["a"]
        assert metadata.hide("a", ONE, 3.0)
        assert not metadata.hide("a", ONE, 3.0)
        assert metadata.shown("a", [ONE]) == {}
        assert metadata.gone("a") == [Gone("a", ONE, "", (), 3.0)]

    def test_a_manifest_is_found_by_digest_and_by_each_of_its_tags(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1", "latest")
        for version in (ONE, "v1", "latest"):
            found = metadata.find("a", version)
            assert found is not None
            assert (found.digest, found.size, found.annotations) == (ONE, 3, {"a": "b"})
        assert metadata.find("a", "v2") is None
        assert metadata.find("b", ONE) is None
        assert metadata.known("a", [ONE, TWO]) == {ONE}
        assert metadata.parents("a", LAYER) == [ONE]
        assert set(metadata.named()) == {ONE, LAYER}
        assert metadata.exists("a")
        assert not metadata.exists("b")

    def test_a_guard_that_refuses_leaves_everything_as_it_was(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1")
        with pytest.raises(FailedPrecondition):
            metadata.record("a", [record(TWO)], {"v0": TWO, "v1": TWO}, 2.0, actor="", guard=refuse)
        with pytest.raises(FailedPrecondition):
            metadata.remove("a", ONE, 2.0, actor="", guard=refuse)
        with pytest.raises(FailedPrecondition):
            metadata.untag("a", "v1", 2.0, actor="", guard=refuse)
        assert metadata.find("a", TWO) is None
        assert metadata.tags("a", "", -1) == ["v1"]
        assert len(metadata.history("a")) == 1
        assert metadata.gone() == []

    def test_a_guard_sees_what_is_at_the_moment_of_the_change(self, metadata: Metadata) -> None:
        """Of many who want to replace the same, one can."""
        self.put(metadata, ONE, "v1")
        done: list[Digest] = []

        def swap(digest: Digest) -> None:
            def guard(_tag: str, current: "Digest | None", _wanted: "Digest | None") -> None:
                if current != ONE:
                    raise FailedPrecondition("it has moved")

            try:
                metadata.record("a", [record(digest)], {"v1": digest}, 2.0, actor="", guard=guard)
                done.append(digest)
            except FailedPrecondition:
                pass

        threads = [threading.Thread(target=swap, args=(Digest.of(b"%d" % number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = metadata.find("a", "v1")
        assert found is not None
        assert done == [found.digest]

    def test_every_move_of_a_tag_is_remembered_the_latest_first(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1", moment=1.0, actor="alice")
        self.put(metadata, ONE, "v1", moment=2.0, actor="bob")  # no move
        self.put(metadata, TWO, "v1", moment=3.0, actor="carol")
        assert metadata.untag("a", "v1", 4.0, actor="dave", guard=allow)
        assert not metadata.untag("a", "v1", 5.0, actor="dave", guard=allow)
        history = [(change.digest, change.moment, change.actor) for change in metadata.history("a", "v1")]
        assert history == [(None, 4.0, "dave"), (TWO, 3.0, "carol"), (ONE, 1.0, "alice")]
        assert metadata.history("a", "v2") == []

    def test_a_removed_manifest_leaves_a_tombstone_until_it_comes_again_or_expires(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1", "v2")
        assert metadata.remove("a", ONE, 2.0, actor="", guard=allow)
        assert not metadata.remove("a", ONE, 2.0, actor="", guard=allow)
        assert metadata.tags("a", "", -1) == []
        [gone] = metadata.gone()
        assert (gone.repository, gone.digest, gone.media_type) == ("a", ONE, media_types.OCI_MANIFEST)
        assert set(gone.tags) == {"v1", "v2"}
        kept = metadata.reasons([ONE, LAYER, TWO], unnamed_since=FOREVER, gone_since=1.0)
        assert set(kept) == {ONE, LAYER}
        assert metadata.reasons([ONE, LAYER], unnamed_since=FOREVER, gone_since=2.0) == {}
        self.put(metadata, ONE)
        assert metadata.gone() == []
        metadata.remove("a", ONE, 3.0, actor="", guard=allow)
        metadata.expire(3.0)
        assert metadata.gone() == []

    def test_the_reason_to_keep_a_blob_names_what_needs_it(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1")
        self.put(metadata, TWO)
        metadata.show("b", [LAYER, Digest.of(b"fresh")], 10.0)
        kept = metadata.reasons([ONE, TWO, LAYER, Digest.of(b"fresh")], unnamed_since=5.0, gone_since=FOREVER)
        assert kept[ONE] == "manifest a:v1"
        assert kept[TWO] == "untagged manifest of a"
        assert kept[LAYER].startswith("part of a")
        assert kept[Digest.of(b"fresh")].startswith("pushed to b ")
        assert metadata.reasons([Digest.of(b"fresh")], unnamed_since=10.0, gone_since=FOREVER) == {}

    def test_what_is_forgotten_is_older_than_the_moment(self, metadata: Metadata) -> None:
        metadata.show("a", [ONE], 1.0)
        metadata.show("b", [ONE], 9.0)
        metadata.forget([ONE], 5.0)
        assert metadata.shown_in(ONE) == ["b"]

    def test_lists_are_in_ascii_order_and_go_on_after_a_name(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "b", "A", "a", "Z", "1")
        assert metadata.tags("a", "", -1) == ["1", "A", "Z", "a", "b"]
        assert metadata.tags("a", "A", 2) == ["Z", "a"]
        metadata.show("empty", [ONE], 1.0)
        metadata.record("b/c", [record(ONE)], {}, 1.0, actor="", guard=allow)
        assert metadata.catalog("", -1) == ["a", "b/c"]
        assert metadata.catalog("a", 5) == ["b/c"]
        assert metadata.counts() == {"repositories": 3, "manifests": 2, "tags": 5, "blobs": 1}

    def test_referrers_and_untagged_manifests_are_found(self, metadata: Metadata) -> None:
        self.put(metadata, ONE, "v1")
        self.put(metadata, TWO, moment=1.0)
        child, referrer = Digest.of(b"child"), Digest.of(b"referrer")
        index = record(Digest.of(b"index"), child)
        metadata.record("a", [record(child), index], {"v2": index.descriptor.digest}, 1.0, actor="", guard=allow)
        metadata.record("a", [record(referrer, subject=ONE)], {}, 1.0, actor="", guard=allow)
        assert [found.digest for found in metadata.referrers("a", ONE)] == [referrer]
        assert metadata.referrers("b", ONE) == []
        assert metadata.untagged(2.0, -1) == [("a", TWO)]
        assert metadata.untagged(1.0, -1) == []

    def test_rules_are_kept_until_they_are_removed(self, metadata: Metadata) -> None:
        rule = TagRule("team/**", "v*")
        assert metadata.set_tag_rule(rule, present=True)
        assert not metadata.set_tag_rule(rule, present=True)
        assert metadata.tag_rules() == [rule]
        assert metadata.set_tag_rule(rule, present=False)
        assert not metadata.set_tag_rule(rule, present=False)
        hub, quay = UpstreamRule("hub", "docker.io", default=True), UpstreamRule("quay", "quay.io", default=True)
        for upstream in (hub, quay):
            assert metadata.set_upstream(upstream, present=True)
        assert metadata.upstreams() == [UpstreamRule("hub", "docker.io"), quay]  # there is one default
        assert metadata.set_upstream(UpstreamRule("hub", ""), present=False)
        assert metadata.upstreams() == [quay]
