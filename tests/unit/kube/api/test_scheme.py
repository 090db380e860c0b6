from kestrel.kube.api import scheme


def test_every_row_can_be_found_by_path_and_by_kind():
    for row in scheme.RESOURCES:
        assert scheme.by_plural(row.group, row.version, row.plural) is row
        assert scheme.by_kind(row.group, row.version, row.kind) is row


def test_short_names_are_unique_within_a_group():
    names = [(r.group, n) for r in scheme.RESOURCES for n in (r.plural, r.singular, *r.short_names)]
    assert len(names) == len(set(names))


def test_events_of_both_groups_share_one_storage():
    new = scheme.by_kind("events.k8s.io", "v1", "Event")
    assert new.storage_version == ("", "v1")


def test_api_versions_split_and_join():
    for text in ("v1", "apps/v1"):
        assert scheme.api_version(*scheme.split_api_version(text)) == text


def test_a_scheme_can_be_extended_without_changing_the_built_in_one():
    row = scheme.Resource(group="example.com", kind="Crow", plural="crows", singular="crow", custom=True)
    more = scheme.BUILTIN.extended([row])
    assert more.by_kind("example.com", "v1", "Crow") is row
    assert scheme.by_kind("example.com", "v1", "Crow") is None
    assert more.groups()["example.com"] == ["v1"]
