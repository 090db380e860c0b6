import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument, ResourceExhausted
from kestrel.kube.api import patch, schemas, scheme, status

POD = scheme.by_kind("", "v1", "Pod")
SCHEMAS = schemas.load()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab/~", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner, max_size=3),
    max_leaves=12,
)


def strategic(obj, change):
    before = copy.deepcopy(obj)
    found = patch.strategic_merge_patch(SCHEMAS, POD, obj, change)
    assert obj == before, "a patch must not change the live object"
    return found


# The cases of RFC 6902 appendix A, in short.
@pytest.mark.parametrize(
    ("doc", "operations", "result"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/b"}], {"a": 1}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}], {"a/b": 1, "m~n": 2}),
        ({"m~n": 2}, [{"op": "remove", "path": "/m~0n"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
    ],
)
def test_json_patches_do_what_the_rfc_says(doc, operations, result):
    assert patch.json_patch(doc, operations) == result


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "remove", "path": "/missing"}],
        [{"op": "replace", "path": "/missing", "value": 1}],
        [{"op": "add", "path": "/missing/x", "value": 1}],
        [{"op": "add", "path": "/list/5", "value": 1}],
        [{"op": "add", "path": "/list/01", "value": 1}],
        [{"op": "remove", "path": "/list/-"}],
        [{"op": "test", "path": "/a", "value": True}],
        [{"op": "add", "path": "/a"}],
        [{"op": "wave", "path": "/a"}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "value": 1}],
        [{"op": "move", "from": "/map", "path": "/map/x"}],
        [{"op": "remove", "path": ""}],
    ],
)
def test_a_json_patch_that_does_not_fit_is_unprocessable(operations):
    doc = {"a": 1, "list": [1], "map": {}}
    with pytest.raises(InvalidArgument) as caught:
        patch.json_patch(doc, operations)
    assert status.failure(caught.value)["code"] == 422
    assert doc == {"a": 1, "list": [1], "map": {}}


def test_copies_of_copies_are_bounded():
    operations = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(64)]
    with pytest.raises(ResourceExhausted):
        patch.json_patch({"a": {"x": 1}}, operations)


@given(JSON, JSON)
def test_replacing_the_document_gives_the_new_one(old, new):
    assert patch.json_patch(old, [{"op": "replace", "path": "", "value": new}]) == new


# RFC 7386 appendix A.
@pytest.mark.parametrize(
    ("doc", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a"], {"a": "b"}, {"a": "b"}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_do_what_the_rfc_says(doc, change, result):
    assert patch.merge_patch(doc, change) == result


@given(JSON, JSON)
def test_merging_twice_changes_nothing_more(doc, change):
    once = patch.merge_patch(doc, change)
    assert patch.merge_patch(once, change) == once


def pod(**spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


def test_list_items_merge_by_their_key():
    live = pod(containers=[{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}])
    found = strategic(live, {"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}})
    assert found["spec"]["containers"] == [
        {"name": "a", "image": "1", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
        {"name": "b"},
    ]


def test_atomic_lists_and_scalars_are_replaced_and_null_removes():
    live = pod(tolerations=[{"key": "a"}], restartPolicy="Always", nodeSelector={"a": "1", "b": "2"})
    found = strategic(
        live, {"spec": {"tolerations": [{"key": "b"}], "restartPolicy": None, "nodeSelector": {"a": None, "c": "3"}}}
    )
    assert found["spec"] == {"tolerations": [{"key": "b"}], "nodeSelector": {"b": "2", "c": "3"}}


def test_delete_directives_remove_items_and_objects():
    live = pod(containers=[{"name": "a"}, {"name": "b"}], securityContext={"runAsUser": 1})
    found = strategic(
        live,
        {"spec": {"containers": [{"$patch": "delete", "name": "a"}], "securityContext": {"$patch": "delete"}}},
    )
    assert found["spec"] == {"containers": [{"name": "b"}]}


def test_replace_directives_replace_lists_and_objects():
    live = pod(containers=[{"name": "a"}], securityContext={"runAsUser": 1, "fsGroup": 2})
    found = strategic(
        live,
        {
            "spec": {
                "containers": [{"name": "z"}, {"$patch": "replace"}],
                "securityContext": {"$patch": "replace", "runAsUser": 3},
            }
        },
    )
    assert found["spec"] == {"containers": [{"name": "z"}], "securityContext": {"runAsUser": 3}}


def test_retain_keys_switches_a_volume_from_one_source_to_another():
    live = pod(volumes=[{"name": "v", "emptyDir": {}}])
    change = {"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}}
    assert strategic(live, change)["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]
    with pytest.raises(InvalidArgument, match="retainKeys"):
        strategic(live, {"spec": {"volumes": [{"$retainKeys": ["name"], "name": "v", "emptyDir": {"a": 1}}]}})


def test_primitive_lists_merge_and_lose_items_by_directive():
    live = {"metadata": {"name": "p", "finalizers": ["a", "b"]}}
    found = strategic(live, {"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert sorted(found["metadata"]["finalizers"]) == ["b", "c"]


def test_the_order_directive_orders_the_merged_list():
    live = pod(containers=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
    found = strategic(
        live,
        {
            "spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
                "containers": [{"name": "d"}],
            }
        },
    )
    names = [entry["name"] for entry in found["spec"]["containers"]]
    assert [name for name in names if name != "b"] == ["c", "d", "a"]


def test_ports_merge_by_container_port():
    live = pod(containers=[{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}])
    found = strategic(live, {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "w"}]}]}})
    assert found["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP", "name": "w"}]


def test_what_is_new_is_stored_without_directives_and_nulls():
    found = strategic(pod(), {"spec": {"affinity": {"nodeAffinity": None, "$patch": "merge", "podAffinity": {}}}})
    assert found["spec"]["affinity"] == {"podAffinity": {}}


def test_a_list_item_without_its_key_is_refused():
    with pytest.raises(InvalidArgument, match="does not contain declared merge key: name"):
        strategic(pod(containers=[{"name": "a"}]), {"spec": {"containers": [{"image": "x"}]}})
    with pytest.raises(InvalidArgument, match="Unknown patch type"):
        strategic(pod(), {"spec": {"$patch": "wave"}})


def test_custom_kinds_have_no_strategic_merge():
    crow = scheme.Resource(group="example.com", kind="Crow", plural="crows", singular="crow", custom=True)
    with pytest.raises(InvalidArgument) as caught:
        patch.strategic_merge_patch(SCHEMAS, crow, {}, {})
    assert status.failure(caught.value)["code"] == 415


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(NAMES, NAMES)
def test_merging_keeps_every_item_once_and_settles(live, change):
    obj = pod(containers=[{"name": name, "image": "old"} for name in live])
    delta = {"spec": {"containers": [{"name": name, "image": "new"} for name in change]}}
    once = strategic(obj, delta)
    names = [entry["name"] for entry in once["spec"]["containers"]]
    assert sorted(names) == sorted({*live, *change})
    assert [name for name in names if name in change] == change
    assert [name for name in names if name not in change] == [name for name in live if name not in change]
    assert strategic(once, delta) == once
