import hashlib
import json

import pytest

from kestrel.kube.api import enums, openapi, schemas, scheme

GROUPS = [(group, version) for group, versions in scheme.BUILTIN.groups().items() for version in versions]


def document(group, version):
    return json.loads(openapi.v3_document(group, version))


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def test_the_index_names_every_document_with_its_hash():
    paths = json.loads(openapi.v3_index())["paths"]
    assert len(paths) == len(GROUPS)
    for group, version in GROUPS:
        place = f"apis/{group}/{version}" if group else f"api/{version}"
        digest = hashlib.sha256(openapi.v3_document(group, version)).hexdigest().upper()
        assert paths[place] == {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}


def test_nothing_is_served_for_an_unknown_group():
    assert openapi.v3_document("example.com", "v1") is None


@pytest.mark.parametrize(("group", "version"), GROUPS)
def test_every_reference_in_a_document_leads_somewhere(group, version):
    found = document(group, version)
    known = found["components"]["schemas"]
    for reference in references(found):
        assert reference.removeprefix(openapi.V3_PREFIX) in known


def test_version_2_is_whole():
    found = json.loads(openapi.v2())
    for reference in references(found):
        assert reference.removeprefix(openapi.V2_PREFIX) in found["definitions"]
    assert set(found["definitions"]) == set(schemas.load().names())


@pytest.mark.parametrize("row", [r for r in scheme.RESOURCES if "patch" in r.verbs], ids=lambda r: r.group_resource)
def test_the_patch_of_a_kind_says_what_kubectl_looks_for(row):
    base = f"{row.path_prefix}/namespaces/{{namespace}}" if row.namespaced else row.path_prefix
    patch = document(row.group, row.version)["paths"][f"{base}/{row.plural}/{{name}}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": row.group, "version": row.version, "kind": row.kind}
    assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_schemas_carry_kinds_merge_keys_and_texts():
    found = document("", "v1")["components"]["schemas"]
    pod = found["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": openapi.V3_PREFIX + "io.k8s.api.core.v1.PodSpec"}]
    assert pod["properties"]["spec"]["description"]
    containers = found["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert found["io.k8s.api.core.v1.PodSpec"]["required"] == ["containers"]
    assert "oneOf" in found["io.k8s.apimachinery.pkg.api.resource.Quantity"]
    assert found["io.k8s.apimachinery.pkg.apis.meta.v1.Time"]["format"] == "date-time"


def test_fields_with_fixed_words_list_them():
    found = document("", "v1")["components"]["schemas"]
    policy = found["io.k8s.api.core.v1.PodSpec"]["properties"]["restartPolicy"]
    assert policy["enum"] == ["Always", "Never", "OnFailure"]


def test_every_enumerated_field_exists_and_is_text():
    for name, fields in enums.ENUMS.items():
        for field in fields:
            assert schemas.load().definition(name).fields[field].kind == schemas.STRING, (name, field)


def test_a_document_is_made_once():
    assert openapi.v3_document("", "v1") is openapi.v3_document("", "v1")


def test_custom_kinds_offer_no_strategic_merge():
    row = scheme.Resource(group="example.com", kind="Crow", plural="crows", singular="crow", custom=True)
    found = json.loads(openapi.v3_document("example.com", "v1", scheme.BUILTIN.extended([row])))
    path = found["paths"]["/apis/example.com/v1/namespaces/{namespace}/crows/{name}"]
    assert "application/strategic-merge-patch+json" not in path["patch"]["requestBody"]["content"]
