"""Paths, queries and bodies, taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api.scheme import BUILTIN
from kestrel.kube.apiserver import requests


def taken(method: str, path: str, **query: str) -> tuple[str, ...] | None:
    found = requests.route(BUILTIN, method, path, query)
    if found is None:
        return None
    return (found.verb, found.resource.group_resource, found.namespace, found.name, found.subresource)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", ("list", "pods", "", "", "")),
        ("GET", "/api/v1/namespaces/x/pods", ("list", "pods", "x", "", "")),
        ("GET", "/api/v1/namespaces/x/pods/y", ("get", "pods", "x", "y", "")),
        ("GET", "/api/v1/namespaces/x/pods/y/log", ("get", "pods", "x", "y", "log")),
        ("POST", "/api/v1/namespaces/x/pods/y/exec", ("create", "pods", "x", "y", "exec")),
        ("GET", "/api/v1/namespaces", ("list", "namespaces", "", "", "")),
        ("GET", "/api/v1/namespaces/x", ("get", "namespaces", "", "x", "")),
        ("PUT", "/api/v1/namespaces/x/finalize", ("update", "namespaces", "", "x", "finalize")),
        ("PATCH", "/api/v1/namespaces/x/status", ("patch", "namespaces", "", "x", "status")),
        ("DELETE", "/api/v1/namespaces/x/configmaps", ("deletecollection", "configmaps", "x", "", "")),
        ("GET", "/apis/coordination.k8s.io/v1/leases", ("list", "leases.coordination.k8s.io", "", "", "")),
        ("GET", "/api/v1/nodes/a%2Fb", ("get", "nodes", "", "a/b", "")),
        ("GET", "/api/v1/namespaces/x/nodes", None),
        ("GET", "/api/v1/pods/y", None),
        ("GET", "/api/v1/namespaces/x/pods/y/none", None),
        ("GET", "/api/v1/namespaces/x/pods/y/log/z", None),
        ("GET", "/api/v1/gadgets", None),
        ("GET", "/apis/none/v1/pods", None),
        ("GET", "/version", None),
    ],
)
def test_a_path_is_taken_apart_by_the_table(method: str, path: str, expected: tuple[str, ...] | None) -> None:
    assert taken(method, path) == expected


def test_a_get_that_watches_is_a_watch() -> None:
    assert taken("GET", "/api/v1/pods", watch="true") == ("watch", "pods", "", "", "")
    assert taken("GET", "/api/v1/namespaces/x/pods/y", watch="1") == ("watch", "pods", "x", "y", "")
    assert taken("GET", "/api/v1/pods", watch="false") == ("list", "pods", "", "", "")


@given(st.text(max_size=60))
def test_no_path_raises(path: str) -> None:
    requests.route(BUILTIN, "GET", f"/api/v1/{path}", {})


@given(st.binary(max_size=200), st.sampled_from([*requests.BODIES, "text/yaml", "x/y", ""]))
def test_a_hostile_body_raises_nothing_but_a_status(data: bytes, content_type: str) -> None:
    code = 200
    try:
        found, _ = requests.decode(data, content_type, None, strict=True)
        assert isinstance(found, dict)
    except InvalidArgument as error:
        code = error.context["status"]["code"]
    assert code in (200, 400, 415)


@pytest.mark.parametrize("depth", [200, 2000, 100_000])
def test_a_body_that_nests_without_end_is_refused(depth: int) -> None:
    for opening, closing, kind in (
        (b'{"a":', b"}", requests.JSON),
        (b"[", b"]", requests.JSON),
        (b"{a: ", b"}", requests.YAML),
        (b"- ", b"", requests.YAML),
        (b"? ", b"", requests.YAML),
    ):
        with pytest.raises(InvalidArgument) as caught:
            requests.decode(opening * depth + b"1" + closing * depth, kind, None)
        assert caught.value.context["status"]["code"] == 400
