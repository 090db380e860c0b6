import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import protobuf, scheme
from kestrel.kube.api.wire import delimited

# What kubectl 1.33 sent to a listening socket, by command line.
BODIES = {
    command: base64.b64decode(request["body"])
    for command, request in json.loads(
        (Path(__file__).parents[3] / "data/kube/kubectl_1_33_bodies.json").read_text()
    ).items()
}


def body(prefix: str) -> bytes:
    return next(data for command, data in BODIES.items() if command.startswith(prefix))


def test_a_namespace_from_kubectl_is_read():
    assert protobuf.decode_body(body("create namespace")) == {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": "team-a"},
        "spec": {},
        "status": {},
    }


def test_binary_data_becomes_base64_and_empty_values_stay():
    found = protobuf.decode_body(body("create configmap"))
    assert found["data"] == {"colour": "blue", "empty": ""}
    assert found["binaryData"] == {"blob": "AP/+"}


def test_a_zero_that_was_meant_survives_and_others_go():
    found = protobuf.decode_body(body("create deployment"))
    assert found["spec"]["replicas"] == 0
    assert "minReadySeconds" not in found["spec"]
    assert found["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]


def test_quantities_and_int_or_string_have_their_json_form():
    assert protobuf.decode_body(body("create quota"))["spec"]["hard"] == {"cpu": "1", "memory": "1G"}
    assert protobuf.decode_body(body("create service "))["spec"]["ports"][0]["targetPort"] == 8080


def test_reviews_and_token_requests_from_kubectl_are_read():
    assert protobuf.decode_body(body("create token"))["spec"] == {"expirationSeconds": 600}
    review = protobuf.decode_body(body("auth can-i"))
    assert review["spec"]["resourceAttributes"] == {"namespace": "default", "verb": "get", "resource": "pods"}


@pytest.mark.parametrize("command", BODIES)
def test_every_captured_body_survives_a_round_trip(command):
    found = protobuf.decode_body(BODIES[command])
    assert protobuf.decode_body(protobuf.encode(found)) == found


def test_inlined_messages_belong_to_the_object_around_them():
    pod = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {
            "volumes": [{"name": "v", "hostPath": {"path": "/x"}}],
            "containers": [
                {
                    "name": "c",
                    "livenessProbe": {"httpGet": {"port": "web"}, "periodSeconds": 3},
                    "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "resources": {"limits": {"cpu": "100m"}},
                }
            ],
        },
    }
    found = protobuf.decode_body(protobuf.encode(pod))
    assert found["spec"] == pod["spec"]
    assert found["metadata"] == pod["metadata"]


def test_micro_times_keep_their_microseconds():
    lease = {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "spec": {"renewTime": "2026-01-02T03:04:05.123456Z", "leaseDurationSeconds": 15},
    }
    assert protobuf.decode_body(protobuf.encode(lease))["spec"] == lease["spec"]


def test_the_kind_of_the_request_is_used_when_the_body_names_none():
    _, _, raw = protobuf.unwrap(body("create namespace"))
    bare = protobuf.MAGIC + b"\x12" + bytes([len(raw)]) + raw
    namespace = scheme.by_kind("", "v1", "Namespace")
    assert protobuf.decode_body(bare, namespace.gvk)["metadata"]["name"] == "team-a"
    assert protobuf.decode(namespace, raw)["kind"] == "Namespace"
    with pytest.raises(InvalidArgument):
        protobuf.decode_body(bare)


def test_unknown_kinds_and_other_bytes_are_refused():
    with pytest.raises(InvalidArgument, match="magic"):
        protobuf.unwrap(b"{}")
    with pytest.raises(InvalidArgument, match="no protobuf form"):
        protobuf.encode({"apiVersion": "example.com/v1", "kind": "Crow"})


def test_every_served_kind_has_a_message():
    for row in scheme.RESOURCES:
        assert protobuf.knows(row.api_version, row.kind), row.kind


def test_nesting_is_bounded():
    deep = b""
    for _ in range(3000):  # ObjectMeta.managedFields.fieldsV1 ends early; JSON inside is what nests without end
        deep = b"[" + deep + b"]"
    raw = delimited(1, delimited(17, delimited(7, delimited(1, deep))))
    pod = scheme.by_kind("", "v1", "Pod")
    try:
        protobuf.decode(pod, raw)
    except InvalidArgument:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"\x0a\xff\xff\xff\xff\x0f",  # a length beyond the message
        b"\x0a\x03\x0a\x02a",  # a name one byte longer than what is left of its message
        b"\x0a",  # a tag without its value
        b"\x80" * 11,  # an endless number
        b"\x00\x01",  # field number 0
        b"\x0b",  # a group
        b"\x08\x01",  # metadata as a number
        b"\x0a\x03\x0a\x01\xff",  # a name that is not UTF-8
    ],
)
def test_malformed_messages_are_invalid_arguments(raw):
    pod = scheme.by_kind("", "v1", "Pod")
    with pytest.raises(InvalidArgument):
        protobuf.decode(pod, raw)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BODIES)), st.data())
def test_damaged_bodies_are_read_or_refused_and_nothing_else(command, data):
    damaged = bytearray(BODIES[command])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(protobuf.decode_body(bytes(damaged)), dict)
    except InvalidArgument:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(noise):
    pod = scheme.by_kind("", "v1", "Pod")
    try:
        assert protobuf.decode(pod, noise)["kind"] == "Pod"
    except InvalidArgument:
        pass
