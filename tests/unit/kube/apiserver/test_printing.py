"""Which form a client gets."""

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.kube.apiserver.printing import OBJECT, PARTIAL, TABLE, negotiate

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


@pytest.mark.parametrize(
    ("accept", "kind", "version"),
    [
        ("", OBJECT, "v1"),
        ("*/*", OBJECT, "v1"),
        ("application/json, */*", OBJECT, "v1"),
        ("application/vnd.kubernetes.protobuf,application/json", OBJECT, "v1"),
        (KUBECTL, TABLE, "v1"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", TABLE, "v1beta1"),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", OBJECT, "v1"),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", PARTIAL, "v1"),
        ("application/json;q=0.1,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9", TABLE, "v1"),
    ],
)
def test_the_best_form_of_accept_is_chosen(accept: str, kind: str, version: str) -> None:
    found = negotiate(accept, {})
    assert (found.kind, found.version, found.yaml) == (kind, version, False)


def test_yaml_is_a_form() -> None:
    assert negotiate("application/yaml", {}).yaml


def test_what_we_do_not_have_is_not_acceptable() -> None:
    with pytest.raises(InvalidArgument) as caught:
        negotiate("application/vnd.kubernetes.protobuf", {})
    assert caught.value.context["status"]["code"] == 406


def test_the_object_of_a_row_can_be_chosen() -> None:
    assert negotiate(KUBECTL, {"includeObject": "None"}).include == "None"
    with pytest.raises(InvalidArgument, match="includeObject"):
        negotiate(KUBECTL, {"includeObject": "All"})
