import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import documents, fields, scheme

POD = scheme.by_kind("", "v1", "Pod")


def test_unknown_fields_are_named_by_path():
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "nmae": 1},
        "spec": {"containers": [{"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 1}}}], "x": {"y": 1}},
    }
    assert fields.unknown(POD, pod) == ["metadata.nmae", "spec.containers[0].imagee", "spec.x"]


def test_reading_drops_unknown_fields_and_nulls_and_stores_canonical_quantities():
    pod = {
        "metadata": {"name": "p", "creationTimestamp": None, "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "imagee": "x", "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}}]},
    }
    fields.read(POD, pod)
    assert pod == {
        "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]},
    }


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"containers": {}}, "cannot unmarshal object into Go struct field .spec.containers of type []Container"),
        ({"restartPolicy": 1}, "cannot unmarshal number into Go struct field .spec.restartPolicy of type string"),
        ({"hostNetwork": "yes"}, "cannot unmarshal string into Go struct field .spec.hostNetwork of type bool"),
        ({"priority": True}, "cannot unmarshal bool into Go struct field .spec.priority of type int"),
        ({"containers": [{"resources": {"limits": {"cpu": "much"}}}]}, "quantities must match"),
        (
            {"nodeSelector": {"a": 1}},
            "cannot unmarshal number into Go struct field .spec.nodeSelector.a of type string",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(spec, sentence):
    with pytest.raises(InvalidArgument) as caught:
        fields.read(POD, {"spec": spec})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith('Pod in version "v1" cannot be handled as a Pod: ')


def test_free_form_parts_are_left_alone():
    pod = {"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}, "anything": None}}]}}
    fields.read(POD, pod)
    assert pod["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {}, "anything": None}
    assert fields.unknown(POD, pod) == []


def test_keys_given_twice_are_found_with_their_path():
    found, twice = documents.load_json('{"spec":{"a":[{"b":1,"b":2}],"c":1,"c":2}}')
    assert found == {"spec": {"a": [{"b": 2}], "c": 2}}
    assert twice == ["spec.c", "spec.a[0].b"]


@pytest.mark.parametrize("text", ["{", '{"a":NaN}', "[" * 100_000, "", b"\xff"])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(InvalidArgument):
        documents.load_json(text)


def test_yaml_is_read_as_kubernetes_reads_it():
    text = "a: 2026-01-02\nb: 1:30\nc: 0644\nd: yes\ne: 1.5\nf: 'x'\ng:\n- 1\n1: {n: null}\nh: 12\nh: 13\n"
    found, twice = documents.load_yaml(text)
    assert found == {
        "a": "2026-01-02", "b": "1:30", "c": 0o644, "d": True, "e": 1.5, "f": "x", "g": [1], "1": {"n": None}, "h": 13,
    }  # fmt: skip
    assert twice == ["h"]
    assert documents.load_yaml('{"a": 1}') == ({"a": 1}, [])
    assert documents.load_yaml("{a: 1}") == ({"a": 1}, [])


def test_yaml_aliases_cannot_blow_a_document_up():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(InvalidArgument, match="too many"):
        documents.load_yaml("\n".join(lines))
    with pytest.raises(InvalidArgument):
        documents.load_yaml("a: [")
    with pytest.raises(InvalidArgument):
        documents.load_yaml("a: &x [*x]")
