"""The real kubectl, every version from 1.27 to 1.33, against the real API server over TLS."""

import asyncio
import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from kestrel.kube.client import Recorder
from kestrel.testing.apiserver import Cluster, running

KUBECTL = shutil.which("kubectl")
BUILDS = Path(os.path.realpath(KUBECTL or "/")).parent
ALL = [str(BUILDS / f"kubectl.1.{minor}") for minor in range(27, 34) if (BUILDS / f"kubectl.1.{minor}").exists()]

pytestmark = [pytest.mark.clients, pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")]

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  labels: {app: web}
data:
  color: blue
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: main
    image: registry.local/web:1
    command: [sleep, "1000"]
    resources: {requests: {cpu: 100m}}
"""


@pytest.fixture
async def cluster(tmp_path):
    async with running(tmp_path) as made:
        yield made


async def ok(cluster: Cluster, *arguments: str, **options) -> str:
    """Run kubectl, which has to succeed; returns what it printed."""
    found = await cluster.run(*arguments, **options)
    assert found.code == 0, f"kubectl {' '.join(arguments)}: {found.err}{found.out}"
    return found.out


async def fails(cluster: Cluster, *arguments: str, **options) -> str:
    """Run kubectl, which has to fail; returns its complaint."""
    found = await cluster.run(*arguments, **options)
    assert found.code != 0, found.out
    return found.err


@pytest.mark.parametrize("kubectl", ALL, ids=os.path.basename)
async def test_every_kubectl_does_the_daily_things(cluster: Cluster, kubectl: str) -> None:
    async def run(*arguments: str, **options) -> str:
        return await ok(cluster, *arguments, program=kubectl, **options)

    assert "configmap/settings created" in await run("apply", "-f", "-", stdin=CONFIG)
    assert "unchanged" in await run("apply", "-f", "-", stdin=CONFIG)
    assert "configured" in await run("apply", "-f", "-", stdin=CONFIG.replace("blue", "red"))
    assert "pod/web created" in await run("create", "-f", "-", stdin=POD)
    assert "namespace/extra created" in await run("create", "namespace", "extra")
    assert "secret/s created" in await run("create", "secret", "generic", "s", "--from-literal=k=v")
    assert "pod/runner created" in await run("run", "runner", "--image=x", "--restart=Never")
    table = await run("get", "pods", "-o", "wide", "--show-labels")
    assert table.splitlines()[0].split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert any(line.split()[:3] == ["web", "0/1", "Pending"] for line in table.splitlines())
    assert "color: red" in await run("get", "cm", "settings", "-o", "yaml")
    assert await run("get", "pods", "-A", "-l", "app=web", "-o", "name") == "pod/web\n"
    assert "labeled" in await run("label", "pod", "web", "tier=front")
    assert "pod/web annotate" in await run("annotate", "pod", "web", "note=hi")
    assert "patched" in await run("patch", "cm", "settings", "-p", '{"data":{"size":"1"}}')
    assert "Name:         web" in (await run("describe", "pod", "web")).replace("Name:             ", "Name:         ")
    assert "FIELD" in await run("explain", "pod.spec.containers.image")
    assert "pods" in await run("api-resources")
    assert "v1" in (await run("api-versions")).splitlines()
    assert await run("auth", "can-i", "create", "pods") == "yes\n"
    assert "Server Version" in await run("version")
    await run("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=CONFIG.replace("settings", "second"))
    assert "deleted" in await run("delete", "pod", "web", "runner")
    assert "deleted" in await run("delete", "cm", "--all")
    assert "No resources found" in (await cluster.run("get", "pods", program=kubectl)).err


async def test_the_oldest_kubectl_explains_from_the_old_document(cluster: Cluster) -> None:
    found = await ok(cluster, "explain", "--output=plaintext-openapiv2", "pod.spec.restartPolicy", program=ALL[0])
    assert "Restart policy for all containers within the pod" in found


async def test_get_prints_what_is_there(cluster: Cluster) -> None:
    await ok(cluster, "create", "-f", "-", stdin=POD)
    assert (
        await ok(cluster, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}")
        == "registry.local/web:1"
    )
    assert await ok(
        cluster, "get", "pods", "--no-headers", "-o", "custom-columns=N:.metadata.name,Q:.status.qosClass"
    ) == ("web   Burstable\n")
    assert "error: the server doesn't have a resource type" in await fails(cluster, "get", "gadgets")
    assert await fails(cluster, "get", "pod", "none") == 'Error from server (NotFound): pods "none" not found\n'
    assert "web" in await ok(cluster, "get", "pods", "--field-selector=status.phase=Pending,spec.nodeName=")
    assert await ok(cluster, "get", "pods", "--field-selector=status.phase!=Pending", "-o", "name") == ""
    assert "field label not supported" in await fails(cluster, "get", "pods", "--field-selector=spec.hostname=x")


async def test_get_follows_changes(cluster: Cluster) -> None:
    process = await cluster.start("get", "cm", "-w", "-o", "name")
    assert process.stdout is not None
    try:
        await ok(cluster, "create", "cm", "a")
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"configmap/a\n"
        await ok(cluster, "label", "cm", "a", "x=y")
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"configmap/a\n"
    finally:
        process.terminate()
        await process.communicate()


async def test_get_follows_changes_in_a_table(cluster: Cluster) -> None:
    await ok(cluster, "create", "cm", "a")
    process = await cluster.start("get", "cm", "-w")
    assert process.stdout is not None
    try:
        lines = [await asyncio.wait_for(process.stdout.readline(), 30) for _ in range(2)]
        await ok(cluster, "create", "cm", "b", "--from-literal=k=v")
        lines.append(await asyncio.wait_for(process.stdout.readline(), 30))
        assert [line.split()[:2] for line in lines] == [[b"NAME", b"DATA"], [b"a", b"0"], [b"b", b"1"]]
    finally:
        process.terminate()
        await process.communicate()


async def test_wait_sees_conditions_and_deletion(cluster: Cluster) -> None:
    await ok(cluster, "create", "-f", "-", stdin=POD)
    waiting = asyncio.create_task(cluster.run("wait", "--for=condition=Ready", "pod/web", "--timeout=30s"))
    jsonpath = asyncio.create_task(
        cluster.run("wait", "--for=jsonpath={.status.phase}=Running", "pod/web", "--timeout=30s")
    )
    await asyncio.sleep(0.5)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await cluster.client.patch_status("pods", "web", ready, "default")
    assert "condition met" in (await waiting).out
    assert "condition met" in (await jsonpath).out
    gone = asyncio.create_task(cluster.run("wait", "--for=delete", "pod/web", "--timeout=30s"))
    await asyncio.sleep(0.5)
    await cluster.client.delete("pods", "web", "default")
    assert (await gone).code == 0


async def test_server_side_apply_keeps_owners_apart(cluster: Cluster) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    await ok(cluster, *apply, "--field-manager=one", stdin=CONFIG)
    conflict = await fails(cluster, *apply, "--field-manager=two", stdin=CONFIG.replace("blue", "red"))
    assert 'conflict with "one": .data.color' in conflict
    await ok(cluster, *apply, "--field-manager=two", "--force-conflicts", stdin=CONFIG.replace("blue", "red"))
    await ok(cluster, *apply, "--field-manager=two", stdin=CONFIG.replace("color: blue", "size: big"))
    found = json.loads(await ok(cluster, "get", "cm", "settings", "-o", "json", "--show-managed-fields"))
    assert found["data"] == {"size": "big"}
    assert {entry["manager"] for entry in found["metadata"]["managedFields"]} == {"one", "two"}


async def test_diff_and_dry_run_change_nothing(cluster: Cluster) -> None:
    await ok(cluster, "apply", "-f", "-", stdin=CONFIG)
    changed = CONFIG.replace("blue", "green")
    found = await cluster.run("diff", "-f", "-", stdin=changed)
    assert found.code == 1
    assert "+  color: green" in found.out
    assert "-  color: blue" in found.out
    for how in (["apply"], ["apply", "--server-side", "--force-conflicts"], ["replace"]):
        await ok(cluster, *how, "--dry-run=server", "-f", "-", stdin=changed)
    await ok(cluster, "create", "cm", "ghost", "--dry-run=server")
    await ok(cluster, "delete", "cm", "settings", "--dry-run=server")
    found_map = json.loads(await ok(cluster, "get", "cm", "-o", "json"))
    assert [(item["metadata"]["name"], item["data"]) for item in found_map["items"]] == [
        ("settings", {"color": "blue"})
    ]


async def test_edit_replaces_what_the_editor_wrote(cluster: Cluster, tmp_path: Path) -> None:
    await ok(cluster, "apply", "-f", "-", stdin=CONFIG)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i s/blue/violet/ "$1"\n')
    editor.chmod(0o700)
    assert "edited" in await ok(
        cluster, "edit", "cm", "settings", environment={"EDITOR": str(editor), "KUBE_EDITOR": str(editor)}
    )
    assert "violet" in await ok(cluster, "get", "cm", "settings", "-o", "yaml")


async def test_patch_takes_all_types(cluster: Cluster) -> None:
    await ok(cluster, "create", "-f", "-", stdin=POD)
    operations = '[{"op":"add","path":"/metadata/labels/a","value":"1"}]'
    await ok(cluster, "patch", "pod", "web", "--type=json", "-p", operations)
    await ok(cluster, "patch", "pod", "web", "--type=merge", "-p", '{"metadata":{"labels":{"b":"2"}}}')
    await ok(cluster, "patch", "pod", "web", "-p", '{"spec":{"containers":[{"name":"main","image":"other:2"}]}}')
    found = json.loads(await ok(cluster, "get", "pod", "web", "-o", "json"))
    assert found["metadata"]["labels"] == {"app": "web", "a": "1", "b": "2"}
    assert [c["image"] for c in found["spec"]["containers"]] == ["other:2"]
    assert found["spec"]["containers"][0]["command"] == ["sleep", "1000"]
    await ok(cluster, "patch", "pod", "web", "--subresource=status", "-p", '{"status":{"phase":"Failed"}}')
    assert await ok(cluster, "get", "pod", "web", "-o", "jsonpath={.status.phase}") == "Failed"


async def test_strict_validation_names_the_unknown_field(cluster: Cluster) -> None:
    wrong = POD.replace("command:", "comand:")
    assert 'unknown field "spec.containers[0].comand"' in await fails(cluster, "apply", "-f", "-", stdin=wrong)
    assert 'unknown field "spec.containers[0].comand"' in await fails(cluster, "create", "-f", "-", stdin=wrong)
    side = await fails(cluster, "apply", "--server-side", "-f", "-", stdin=wrong)
    assert "comand" in side
    warned = await cluster.run("create", "--validate=warn", "-f", "-", stdin=wrong)
    assert warned.code == 0
    assert 'Warning: unknown field "spec.containers[0].comand"' in warned.err


async def test_what_is_invalid_is_named_by_field(cluster: Cluster) -> None:
    wrong = POD.replace("image: registry.local/web:1", 'image: ""')
    found = await fails(cluster, "create", "-f", "-", stdin=wrong)
    assert 'The Pod "web" is invalid: spec.containers[0].image: Required value' in found
    await ok(cluster, "create", "-f", "-", stdin=POD)
    found = await fails(cluster, "patch", "pod", "web", "-p", '{"spec":{"nodeName":"other","hostname":"x"}}')
    assert 'The Pod "web" is invalid' in found
    assert "Forbidden: pod updates may not change fields other than" in found


async def test_create_makes_typed_objects(cluster: Cluster) -> None:
    await ok(cluster, "create", "serviceaccount", "robot")
    token = (await ok(cluster, "create", "token", "robot", "--duration=15m")).strip()
    assert token.count(".") == 2
    path = cluster.write_kubeconfig("robot", {"token": token})
    who = json.loads(await ok(cluster, "--kubeconfig", str(path), "auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    assert (await cluster.run("--kubeconfig", str(path), "auth", "can-i", "get", "pods")).out == "no\n"
    refused = await fails(cluster, "--kubeconfig", str(path), "get", "pods")
    assert refused == (
        'Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:default:robot" cannot list '
        'resource "pods" in API group "" in the namespace "default"\n'
    )
    await ok(cluster, "delete", "serviceaccount", "robot")
    assert "Unauthorized" in await fails(cluster, "--kubeconfig", str(path), "auth", "whoami")


async def test_a_client_certificate_is_an_identity(cluster: Cluster) -> None:
    made = cluster.authority.client_certificate("jane", ["developers"])
    user = {
        "client-certificate-data": base64.b64encode(made.certificate).decode(),
        "client-key-data": base64.b64encode(made.key).decode(),
    }
    path = cluster.write_kubeconfig("jane", user)
    who = json.loads(await ok(cluster, "--kubeconfig", str(path), "auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == "jane"
    assert "developers" in who["status"]["userInfo"]["groups"]
    assert "Forbidden" in await fails(cluster, "--kubeconfig", str(path), "get", "pods")
    assert "Server Version" in await ok(cluster, "--kubeconfig", str(path), "version")


async def test_namespaces_are_protected_and_refuse_new_things_when_they_go(cluster: Cluster) -> None:
    assert 'namespaces "default" is forbidden: this namespace may not be deleted' in await fails(
        cluster, "delete", "ns", "default"
    )
    assert 'namespaces "none" not found' in await fails(cluster, "-n", "none", "create", "cm", "a")
    await ok(cluster, "create", "ns", "going")
    await ok(cluster, "delete", "ns", "going", "--wait=false")
    assert await ok(cluster, "get", "ns", "going", "-o", "jsonpath={.status.phase}") == "Terminating"
    assert "because it is being terminated" in await fails(cluster, "-n", "going", "create", "cm", "a")
    found = await cluster.client.get("namespaces", "going")
    found["spec"] = {"finalizers": []}
    await cluster.client.update("namespaces", found, subresource="finalize")
    assert "not found" in await fails(cluster, "get", "ns", "going")


async def test_describe_and_events_show_what_happened(cluster: Cluster) -> None:
    await ok(cluster, "create", "-f", "-", stdin=POD)
    pod = await cluster.client.get("pods", "web", "default")
    async with Recorder(cluster.client, "kubelet", host="node") as recorder:
        for _ in range(2):
            recorder.event(pod, "Warning", "BackOff", "Back-off pulling image", path="spec.containers{main}")
        await recorder.flush()
    described = await ok(cluster, "describe", "pod", "web")
    assert "BackOff" in described
    assert "x2 over" in described
    assert "Back-off pulling image" in await ok(cluster, "events", "--for", "pod/web")
    assert "pod/web" in await ok(cluster, "get", "events")


async def test_a_pod_is_deleted_with_grace_by_its_node(cluster: Cluster) -> None:
    await ok(cluster, "create", "-f", "-", stdin=POD)
    await cluster.client.bind("default", "web", "node-1")
    assert await ok(cluster, "get", "pod", "web", "-o", "jsonpath={.spec.nodeName}") == "node-1"
    deleting = asyncio.create_task(cluster.run("delete", "pod", "web", "--grace-period=5"))
    for _ in range(1000):
        pod = await cluster.client.get("pods", "web", "default")
        if pod["metadata"].get("deletionTimestamp"):
            break
        await asyncio.sleep(0.01)
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 5
    await cluster.client.delete("pods", "web", "default", grace_seconds=0, uid=pod["metadata"]["uid"])
    assert (await deleting).code == 0


async def test_a_big_list_comes_in_pages_and_whole(cluster: Cluster) -> None:
    body = {"metadata": {"namespace": "default"}, "data": {"text": "x" * 2000}}
    for number in range(700):
        named = {**body, "metadata": {"name": f"n{number:03}", "namespace": "default"}}
        await cluster.client.create("configmaps", named)
    names = (await ok(cluster, "get", "cm", "-o", "name", "--chunk-size=100")).splitlines()
    assert names == [f"configmap/n{number:03}" for number in range(700)]
    assert len((await ok(cluster, "get", "cm", "--chunk-size=0")).splitlines()) == 701


async def test_two_kubectls_of_one_file_do_not_lose_an_update(cluster: Cluster, tmp_path: Path) -> None:
    await ok(cluster, "apply", "-f", "-", stdin=CONFIG)
    path = tmp_path / "old.json"
    path.write_text(await ok(cluster, "get", "cm", "settings", "-o", "json"))
    await ok(cluster, "label", "cm", "settings", "x=y")
    found = await fails(cluster, "replace", "-f", str(path))
    assert "the object has been modified; please apply your changes to the latest version and try again" in found
