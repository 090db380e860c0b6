import copy
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import Conflict, InvalidArgument
from kestrel.kube.api import apply, fieldsets, schemas, scheme, status

POD = scheme.by_kind("", "v1", "Pod")
CONFIG = scheme.by_kind("", "v1", "ConfigMap")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def config(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}


def pod(*containers, **spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": list(containers), **spec},
    }


def owned(obj, manager, operation="Apply"):
    for entry in obj["metadata"].get("managedFields", ()):
        if (entry["manager"], entry["operation"]) == (manager, operation):
            return entry["fieldsV1"]
    return None


def test_the_first_apply_creates_and_owns_what_it_names():
    found = apply.apply(CONFIG, None, config(a="1"), "me", now=NOW)
    assert found["data"] == {"a": "1"}
    assert found["metadata"]["managedFields"] == [
        {
            "manager": "me",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}}},
        }
    ]


def test_list_items_are_owned_by_their_keys():
    container = {"name": "c", "image": "i", "ports": [{"containerPort": 80}], "command": ["x"]}
    found = apply.apply(POD, None, pod(container), "me", now=NOW)
    assert owned(found, "me") == {
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:command": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                }
            }
        }
    }


def test_a_field_no_longer_applied_is_removed_and_defaults_stay():
    live = apply.apply(POD, None, pod({"name": "a", "image": "1", "tty": True}, {"name": "b", "image": "1"}), "me")
    live["spec"]["restartPolicy"] = "Always"
    live["spec"]["containers"][1]["imagePullPolicy"] = "Always"
    found = apply.apply(POD, live, pod({"name": "a", "image": "1"}), "me")
    assert found["spec"] == {"containers": [{"name": "a", "image": "1"}], "restartPolicy": "Always"}


def test_a_map_that_loses_its_last_key_goes():
    live = apply.apply(CONFIG, None, {**config(), "data": {"a": "1"}}, "me")
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert "data" not in apply.apply(CONFIG, live, bare, "me")


def test_another_manager_s_field_is_a_conflict_that_names_both():
    live = apply.apply(CONFIG, None, config(a="1", b="1"), "first")
    with pytest.raises(Conflict) as caught:
        apply.apply(CONFIG, live, config(a="2"), "second")
    found = status.failure(caught.value)
    assert found["code"] == 409
    assert found["message"] == 'Apply failed with 1 conflict: conflict with "first": .data.a'
    assert found["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "first"', "field": ".data.a"}
    ]


def test_several_conflicts_are_listed_by_manager():
    live = apply.update_managed_fields(CONFIG, None, config(a="1", b="1"), "editor", NOW)
    with pytest.raises(Conflict) as caught:
        apply.apply(CONFIG, live, config(a="2", b="2"), "me")
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "editor" using v1 at 2026-01-02T03:04:05Z:\n- .data.a\n- .data.b'
    )


def test_force_takes_the_field_over():
    live = apply.apply(CONFIG, None, config(a="1", b="1"), "first")
    found = apply.apply(CONFIG, live, config(a="2"), "second", force=True)
    assert found["data"] == {"a": "2", "b": "1"}
    assert owned(found, "first") == {"f:data": {"f:b": {}}}
    assert owned(found, "second") == {"f:data": {"f:a": {}}}


def test_equal_values_are_owned_together_and_outlive_one_owner():
    live = apply.apply(CONFIG, None, config(a="1"), "first")
    shared = apply.apply(CONFIG, live, config(a="1"), "second")
    assert owned(shared, "first") == owned(shared, "second") == {"f:data": {"f:a": {}}}
    left = apply.apply(CONFIG, shared, config(), "first")
    assert left["data"] == {"a": "1"}
    assert owned(left, "second") == {"f:data": {"f:a": {}}}
    gone = apply.apply(CONFIG, left, config(), "second")
    assert not gone.get("data")


def test_an_item_someone_else_uses_is_kept():
    live = apply.apply(POD, None, pod({"name": "a", "image": "1"}), "first")
    both = apply.apply(POD, live, pod({"name": "a", "tty": True}), "second")
    left = apply.apply(POD, both, {**pod(), "spec": {"restartPolicy": "Never"}}, "first")
    assert left["spec"] == {"containers": [{"name": "a", "tty": True}], "restartPolicy": "Never"}


def test_an_update_takes_over_what_it_changes():
    live = apply.apply(CONFIG, None, config(a="1", b="1"), "applier")
    new = copy.deepcopy(live)
    new["data"]["a"] = "2"
    del new["data"]["b"]
    found = apply.update_managed_fields(CONFIG, live, new, "editor", NOW)
    assert owned(found, "applier") is None
    assert owned(found, "editor", "Update") == {"f:data": {"f:a": {}}}


def test_a_created_object_is_owned_by_its_creator():
    obj = pod({"name": "c", "image": "i"})
    obj["metadata"]["labels"] = {"app": "x"}
    found = apply.update_managed_fields(POD, None, obj, "kubectl-run", NOW)
    fields = owned(found, "kubectl-run", "Update")
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:app": {}}}
    assert set(fields["f:spec"]["f:containers"]) == {'k:{"name":"c"}', "."}


def test_status_is_owned_through_its_own_path():
    live = apply.update_managed_fields(POD, None, pod({"name": "c"}), "creator", NOW)
    new = copy.deepcopy(live)
    new["status"] = {"phase": "Running"}
    found = apply.update_managed_fields(POD, live, new, "kubelet", NOW, "status")
    entry = next(e for e in found["metadata"]["managedFields"] if e["manager"] == "kubelet")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {"f:phase": {}}}


def test_a_write_that_changes_nothing_changes_no_owner_and_no_time():
    live = apply.update_managed_fields(CONFIG, None, config(a="1"), "me", NOW)
    again = apply.update_managed_fields(CONFIG, live, copy.deepcopy(live), "you", NOW + timedelta(hours=1))
    assert again == live
    applied = apply.apply(CONFIG, live, config(a="1"), "me", now=NOW)
    assert apply.apply(CONFIG, applied, config(a="1"), "me", now=NOW + timedelta(hours=1)) == applied


def test_a_client_that_drops_managed_fields_does_not_erase_them():
    live = apply.apply(CONFIG, None, config(a="1"), "me")
    new = config(a="1", b="2")
    found = apply.update_managed_fields(CONFIG, live, new, "old-client", NOW)
    assert owned(found, "me") == {"f:data": {"f:a": {}}}
    new = config(a="1")
    new["metadata"]["managedFields"] = [{}]
    assert owned(apply.update_managed_fields(CONFIG, live, new, "x", NOW), "me") is None


def test_the_oldest_updaters_are_folded_together():
    live = None
    for number in range(14):
        new = config(**{**(live or config())["data"], f"k{number}": "1"})
        new["metadata"]["managedFields"] = (live or config())["metadata"].get("managedFields")
        live = apply.update_managed_fields(CONFIG, live, new, f"m{number}", NOW + timedelta(seconds=number))
    entries = live["metadata"]["managedFields"]
    assert len(entries) <= apply.MAX_UPDATERS + 1
    assert any(entry["manager"] == "ancient-changes" for entry in entries)


def test_atomic_lists_are_owned_whole():
    live = apply.apply(POD, None, pod({"name": "c", "command": ["a", "b"]}, tolerations=[{"key": "x"}]), "one")
    with pytest.raises(Conflict, match=r"\.spec\.tolerations"):
        apply.apply(POD, live, {**pod(), "spec": {"tolerations": [{"key": "y"}]}}, "two")


def test_items_that_cannot_be_told_apart_are_refused():
    with pytest.raises(InvalidArgument, match=r'duplicate entries for key \[name="c"\]'):
        apply.apply(POD, None, pod({"name": "c"}, {"name": "c"}), "me")
    with pytest.raises(InvalidArgument, match="omits"):
        apply.apply(POD, None, pod({"image": "x"}), "me")
    with pytest.raises(InvalidArgument, match="managedFields"):
        apply.apply(POD, None, {"metadata": {"managedFields": [{"manager": "x"}]}}, "me")


def test_applied_items_keep_their_order_and_live_ones_their_place():
    live = apply.apply(POD, None, pod(*({"name": n} for n in "abc")), "one")
    found = apply.apply(POD, live, pod(*({"name": n} for n in "cxa")), "two")
    assert [c["name"] for c in found["spec"]["containers"]] == ["c", "x", "a", "b"]


DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["x", "y", "z"]), DATA), min_size=1, max_size=8))
def test_after_forced_applies_everything_applied_last_is_there_and_nothing_is_unowned(history):
    live, latest = None, {}
    for manager, data in history:
        live = apply.apply(CONFIG, live, config(**data), manager, force=True, now=NOW)
        latest[manager] = data
        for key, value in data.items():
            assert live["data"][key] == value
        claimed = set()
        for entry in live["metadata"].get("managedFields", ()):
            claimed |= {key for key in entry["fieldsV1"].get("f:data", {}) if key != "."}
        assert claimed >= {f"f:{key}" for key in live.get("data", {})}
    again = apply.apply(CONFIG, live, config(**latest[history[-1][0]]), history[-1][0], force=True, now=NOW)
    assert again == live


SETS = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(st.sampled_from(["f:a", "f:b", "f:c", "."]), inner, max_size=3),
    max_leaves=6,
)


@given(SETS, SETS)
def test_field_sets_follow_the_laws_of_sets(left, right):
    a = fieldsets.from_wire(left)
    b = fieldsets.from_wire(right)

    def members(node):
        return set(fieldsets.paths(node))

    assert members(fieldsets.union(a, b)) == members(a) | members(b)
    assert members(fieldsets.intersection(a, b)) == members(a) & members(b)
    assert members(fieldsets.difference(a, b)) == members(a) - members(b)
    assert members(fieldsets.from_wire(fieldsets.to_wire(a))) == members(a)


def test_paths_print_as_kubernetes_prints_them():
    schema = schemas.load().of(POD)
    node = fieldsets.covered(schema, pod({"name": "c", "image": "i"}))
    assert list(fieldsets.paths(node)) == [
        ".apiVersion",
        ".kind",
        ".metadata.name",
        '.spec.containers[name="c"]',
        '.spec.containers[name="c"].image',
        '.spec.containers[name="c"].name',
    ]
