"""Environment, downward API and projected files."""

import base64
from fractions import Fraction

import pytest

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.kube.kubelet.downward import Facts
from kestrel.kube.kubelet.env import CONFIG_MAP, SECRET, Sources, environment, expand, needed
from kestrel.kube.kubelet.projection import File, TokenNeed, render, tokens
from kestrel.kube.kubelet.projection import needed as volume_needs

FACTS = Facts(
    node="n", host_ip="192.0.2.1", pod_ip="10.0.0.2", allocatable={"cpu": Fraction(2), "memory": Fraction(2**30)}
)
POD = {
    "metadata": {
        "name": "web", "namespace": "default", "uid": "u1",
        "labels": {"b": "2", "a": 'quo"te'}, "annotations": {"note": "x"},
    },
    "spec": {"serviceAccountName": "sa", "containers": [{"name": "app"}]},
}  # fmt: skip


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SOURCES = Sources(
    {
        (CONFIG_MAP, "m"): {
            "kind": "ConfigMap", "data": {"A": "1", "B": "2", "not valid": "3"}, "binaryData": {"bin": b64("raw")},
        },
        (SECRET, "s"): {"kind": "Secret", "data": {"password": b64("geheim")}},
    }
)  # fmt: skip


def env(*variables, sources=(), **more):
    container = {"name": "app", "env": list(variables), "envFrom": list(sources), **more}
    return environment(POD, container, SOURCES, FACTS)


def field(path):
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"), ("$(A)$(B)", "12"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$(NONE)", "$(NONE)"), ("$A", "$A"),
        ("a$", "a$"), ("$(A", "$(A"), ("$()", "$()"), ("x$$y", "x$y"),
    ],
)  # fmt: skip
def test_references_are_expanded(text, expanded):
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_a_variable_sees_only_those_before_it():
    found = env({"name": "A", "value": "$(B)"}, {"name": "B", "value": "b"}, {"name": "C", "value": "$(B)"})
    assert found == {"A": "$(B)", "B": "b", "C": "b"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"), ("metadata.uid", "u1"), ("metadata.labels['b']", "2"),
        ("metadata.annotations['note']", "x"), ("metadata.labels['none']", ""), ("spec.nodeName", "n"),
        ("spec.serviceAccountName", "sa"), ("status.podIP", "10.0.0.2"), ("status.hostIP", "192.0.2.1"),
    ],
)  # fmt: skip
def test_fields_of_the_pod(path, value):
    assert env(field(path)) == {"X": value}


def test_an_unknown_field_is_refused():
    with pytest.raises(InvalidArgument, match=r"unsupported fieldPath: spec\.nope"):
        env(field("spec.nope"))


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.cpu", "1m", "500"), ("limits.cpu", "1", "1"), ("limits.memory", "1Mi", "64"),
        ("requests.cpu", "1m", "500"),
        ("requests.ephemeral-storage", "1", "0"), ("limits.memory", None, str(64 * 2**20)),
    ],
)  # fmt: skip
def test_resources_are_whole_numbers_of_the_divisor_rounded_up(resource, divisor, value):
    reference = {"resource": resource} | ({"divisor": divisor} if divisor else {})
    variable = {"name": "X", "valueFrom": {"resourceFieldRef": reference}}
    assert env(variable, resources={"limits": {"cpu": "500m", "memory": "64Mi"}}) == {"X": value}


def test_without_a_limit_the_nodes_share_counts():
    variable = {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
    assert env(variable) == {"X": "2"}


def test_env_from_takes_valid_names_with_the_prefix_and_env_wins():
    found = env({"name": "P_A", "value": "own"}, sources=[{"prefix": "P_", "configMapRef": {"name": "m"}}])
    assert found == {"P_A": "own", "P_B": "2", "P_bin": "raw"}


def test_what_is_missing_is_named_unless_optional():
    missing = {"secretKeyRef": {"name": "s", "key": "pasword"}}
    with pytest.raises(FailedPrecondition, match="couldn't find key pasword in Secret default/s") as caught:
        env({"name": "X", "valueFrom": missing})
    assert caught.value.hint == "did you mean password?"
    with pytest.raises(FailedPrecondition, match='configmap "none" not found'):
        env(sources=[{"configMapRef": {"name": "none"}}])
    optional = {"secretKeyRef": {"name": "s", "key": "no", "optional": True}}
    assert env({"name": "X", "valueFrom": optional}, sources=[{"secretRef": {"name": "no", "optional": True}}]) == {}


def test_what_a_container_needs_is_known_beforehand():
    container = {
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "envFrom": [{"configMapRef": {"name": "m"}}],
    }
    assert needed(container) == {(SECRET, "s"), (CONFIG_MAP, "m")}


def files(volume, issued=None):
    return render(POD, volume, SOURCES, FACTS, issued or {})


def test_a_config_map_becomes_files():
    found = files({"name": "v", "configMap": {"name": "m", "defaultMode": 0o600}})
    assert found["A"] == File(b"1", 0o600)
    assert set(found) == {"A", "B", "not valid", "bin"}


def test_items_choose_paths_and_modes():
    items = [{"key": "A", "path": "dir/a", "mode": 0o400}]
    assert files({"name": "v", "configMap": {"name": "m", "items": items}}) == {"dir/a": File(b"1", 0o400)}


def test_a_missing_item_is_named():
    with pytest.raises(FailedPrecondition, match="references non-existent key C in ConfigMap default/m"):
        files({"name": "v", "configMap": {"name": "m", "items": [{"key": "C", "path": "c"}]}})


def test_a_path_that_leaves_the_volume_is_refused():
    for path in ("../x", "/x", "a/../../x"):
        with pytest.raises(InvalidArgument, match="invalid path in volume"):
            files({"name": "v", "configMap": {"name": "m", "items": [{"key": "A", "path": path}]}})


def test_the_downward_api_prints_labels_quoted():
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    assert files({"name": "v", "downwardAPI": {"items": [item]}})["labels"].data == b'a="quo\\"te"\nb="2"'


def test_a_projected_volume_joins_its_sources():
    sources = [
        {"configMap": {"name": "m", "items": [{"key": "A", "path": "a"}]}},
        {"secret": {"name": "s"}},
        {"serviceAccountToken": {"path": "token", "audience": "x", "expirationSeconds": 700}},
    ]
    volume = {"name": "v", "projected": {"sources": sources}}
    need = TokenNeed("x", 700)
    assert tokens(volume) == {need}
    assert volume_needs(volume) == {(CONFIG_MAP, "m"), (SECRET, "s")}
    found = files(volume, {need: "jwt"})
    assert {path: file.data for path, file in found.items()} == {"a": b"1", "password": b"geheim", "token": b"jwt"}
    assert found["token"].mode == 0o600
