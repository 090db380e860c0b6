"""The daily commands, with every kubectl from 1.27 to 1.33, against the whole platform."""

import json

import pytest

from kestrel.testing.kubectl import MINORS, Kubectl, container, pod, shell, thing

pytestmark = [pytest.mark.root, pytest.mark.clients]

TICKING = shell("echo ready; trap 'exit 0' TERM; while true; do sleep 0.1; done")


@pytest.fixture(params=MINORS, ids=lambda minor: f"1.{minor}")
def versioned(request, kube) -> Kubectl:
    """The kubectl of one minor version."""
    return Kubectl.of(kube.instance, minor=request.param, namespace=kube.namespace)


def test_a_pod_is_applied_shown_and_deleted(versioned):
    """apply, get, describe, label, logs, exec, delete: a day's work."""
    kube = versioned
    assert kube.apply(pod("web", TICKING, labels={"app": "web"})) == "pod/web created\n"
    kube("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
    assert kube.apply(pod("web", TICKING, labels={"app": "web"})) == "pod/web unchanged\n"
    words = kube("get", "pods", "-o", "wide", "-l", "app=web").out.splitlines()[1].split()
    assert words[:3] == ["web", "1/1", "Running"]
    described = kube("describe", "pod", "web").out
    assert "Started container main" in described
    assert kube("label", "pod", "web", "tier=front").out == "pod/web labeled\n"
    assert kube("get", "pods", "-l", "tier=front", "-o", "name").out == "pod/web\n"
    assert kube("logs", "web").out == "ready\n"
    assert kube("exec", "-i", "web", "--", "sh", "-c", "tr a-z A-Z; exit 3", stdin="loud", code=3).out == "LOUD"
    assert kube("delete", "pod", "web").out.startswith('pod "web" deleted')
    assert "NotFound" in kube.fails("get", "pod", "web")


def test_typed_objects_are_created_whatever_their_wire_form(versioned):
    """From 1.32 on `create` sends protobuf."""
    kube = versioned
    kube("create", "configmap", "settings", "--from-literal=color=blue")
    kube("create", "secret", "generic", "password", "--from-literal=word=hunter2")
    kube("create", "serviceaccount", "robot")
    assert kube("get", "configmap", "settings", "-o", "jsonpath={.data.color}").out == "blue"
    assert kube("get", "secret", "password", "-o", "go-template={{.data.word | base64decode}}").out == "hunter2"
    assert len(kube("create", "token", "robot").out.split(".")) == 3
    assert kube("auth", "can-i", "create", "pods").out == "yes\n"


def test_server_side_apply_diff_and_patch(versioned):
    """Field owners, dry runs and three kinds of patch."""
    kube = versioned
    manifest = thing("ConfigMap", "settings", data={"color": "blue"})
    assert kube.apply(manifest, options=["--server-side"]) == "configmap/settings serverside-applied\n"
    changed = json.dumps({**manifest, "data": {"color": "red"}})
    difference = kube("diff", "--server-side", "-f", "-", stdin=changed, code=1).out
    assert "-  color: blue" in difference
    assert "+  color: red" in difference
    kube("patch", "configmap", "settings", "--type=merge", "-p", '{"data":{"color":"green"}}')
    assert "conflict" in kube.fails("apply", "--server-side", "-f", "-", stdin=changed)
    kube("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=changed)
    assert kube("get", "configmap", "settings", "-o", "jsonpath={.data.color}").out == "red"


def test_a_manifest_with_an_unknown_field_is_refused(versioned):
    """Strict validation names the field, and nothing is made."""
    kube = versioned
    wrong = pod("wrong", {**container(), "comand": ["x"]})
    assert 'unknown field "spec.containers[0].comand"' in kube.fails("apply", "-f", "-", stdin=json.dumps(wrong))
    assert kube.get("pods", "wrong") is None


def test_a_file_is_copied_into_and_out_of_a_container(versioned, tmp_path):
    """`cp` is tar over exec."""
    kube = versioned
    (tmp_path / "in").write_text("cargo")
    kube.apply(pod("box"))
    kube.running("box")
    kube("cp", str(tmp_path / "in"), f"{kube.namespace}/box:/tmp/cargo")
    kube("cp", f"{kube.namespace}/box:/tmp/cargo", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "cargo"


def test_schemas_and_resources_are_explained(versioned):
    """OpenAPI and discovery as this version reads them."""
    kube = versioned
    assert "livenessProbe" in kube("explain", "pod.spec.containers", "--recursive").out
    assert "persistentvolumeclaims" in kube("api-resources").out
    assert kube("get", "--raw", "/readyz").out == "ok"
