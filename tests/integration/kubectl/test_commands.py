"""Every command of kubectl that has to do with the kinds there are, against the whole platform."""

import json
import time

import pytest

from kestrel.testing.kubectl import IMAGE, Kubectl, pod, shell, thing

pytestmark = [pytest.mark.root, pytest.mark.clients]

FOREVER = shell("echo ready; trap 'exit 0' TERM; while true; do sleep 0.1; done")


def settings(name: str = "settings", **data: str):
    """Return a ConfigMap."""
    return thing("ConfigMap", name, data=data or {"color": "blue"})


def data(kube: Kubectl, name: str = "settings") -> dict[str, str]:
    """Return a ConfigMap's data as the API has it."""
    return dict((kube.get("configmaps", name) or {}).get("data") or {})


# get


def test_a_list_is_sorted_selected_and_printed_in_every_form(kube):
    kube.apply(settings("b", n="2"), settings("a", n="3"), settings("c", n="1"))
    kube("label", "configmap", "a", "c", "half=one")
    assert kube("get", "cm", "--sort-by=.data.n", "-o", "name", "-l", "half").out == "configmap/c\nconfigmap/a\n"
    assert kube("get", "cm", "-o", "name", "--field-selector=metadata.name=b").out == "configmap/b\n"
    assert kube("get", "cm", "b", "-o", "custom-columns=N:.data.n", "--no-headers").out == "2\n"
    assert kube("get", "cm", "b", "-o", "yaml").out.startswith('apiVersion: v1\ndata:\n  "n": "2"\n')
    assert [item["metadata"]["name"] for item in kube.json("get", "cm", "a", "b")["items"]] == ["a", "b"]
    everywhere = kube("get", "cm", "-A", "--show-labels", "-l", "half=one").out.splitlines()
    assert [line.split()[:2] for line in everywhere[1:]] == [[kube.namespace, "a"], [kube.namespace, "c"]]


def test_a_field_nobody_can_select_by_is_refused(kube):
    assert "field label not supported" in kube.fails("get", "pods", "--field-selector=spec.color=blue")


def test_a_watch_shows_a_pod_come_and_go(kube):
    with kube.background("get", "pods", "--watch", "-o", "wide") as watching:
        time.sleep(0.3)  # kubectl has nothing to show before it watches
        kube.apply(pod("web"))
        kube.running("web")
        kube("delete", "pod", "web", "--now")
        assert watching.stdout is not None
        lines: list[str] = []
        while not any("Terminating" in line for line in lines):
            lines.append(watching.stdout.readline().decode())
    words = [line.split()[1:3] for line in lines[1:]]
    assert words[0] == ["0/1", "Pending"]
    assert ["1/1", "Running"] in words


def test_several_kinds_are_shown_at_once(kube):
    kube.apply(settings(), thing("Secret", "word", stringData={"a": "b"}), pod("web"))
    shown = kube("get", "pods,configmaps,secrets").out
    assert "pod/web" in shown
    assert "configmap/settings" in shown
    assert "secret/word" in shown
    assert "pod/web" in kube("get", "all", "-o", "name").out


# describe


def test_everything_can_be_described(kube):
    kube.apply(
        settings(),
        thing("Secret", "word", stringData={"a": "four"}),
        thing("PersistentVolumeClaim", "disk", spec=claim("5Mi")),
    )
    bound = kube.until("disk", lambda c: c["status"]["phase"] == "Bound", resource="persistentvolumeclaims")
    assert "blue" in kube("describe", "cm", "settings").out
    assert "4 bytes" in kube("describe", "secret", "word").out
    assert "ProvisioningSucceeded" in kube("describe", "pvc", "disk").out
    assert f"{kube.namespace}/disk" in kube("describe", "pv", bound["spec"]["volumeName"]).out
    assert "Status:       Active" in kube("describe", "ns", kube.namespace).out
    assert "Name:                default" in kube("describe", "sa", "default").out
    node = kube("describe", "node").out
    assert "KubeletReady" in node
    assert "Allocatable" in node


def claim(size: str):
    """Return the spec of a claim."""
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


# apply, create, replace, edit, patch, diff


def test_apply_takes_away_what_the_manifest_no_longer_has(kube):
    kube.apply(settings(color="blue", size="big"))
    assert kube.apply(settings(color="red")) == "configmap/settings configured\n"
    assert data(kube) == {"color": "red"}
    kube.apply(settings(color="red", shape="round"), options=["--server-side", "--force-conflicts"])
    kube.apply(settings(color="red"), options=["--server-side"])
    assert data(kube) == {"color": "red"}


def test_a_pod_can_change_to_server_side_apply_and_be_applied_again(kube):
    """What the server adds to a pod is nobody's: kubectl's migration of field owners must not take it away."""
    kube.apply(pod("web"))
    said = kube("apply", "--server-side", "-f", "-", stdin=json.dumps(pod("web")))
    assert (said.out, said.err) == ("pod/web serverside-applied\n", "")
    assert kube.apply(pod("web", labels={"a": "b"}), options=["--server-side"]) == "pod/web serverside-applied\n"
    found = kube.get("pods", "web")
    assert found is not None
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["spec"]["tolerations"]


def test_apply_prunes_objects_that_left_the_manifest(kube):
    both = [{**settings(name), "metadata": {"name": name, "labels": {"set": "x"}}} for name in ("one", "two")]
    kube.apply(*both)
    said = kube.apply(both[0], options=["--prune", "-l", "set=x", "--prune-allowlist=core/v1/ConfigMap"])
    assert "configmap/two pruned" in said
    assert kube.get("configmaps", "two") is None


def test_objects_are_generated_from_literals_files_and_directories(kube, tmp_path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "one").write_text("1")
    (tmp_path / "dir" / "bytes").write_bytes(b"\xff\x00")
    (tmp_path / "env").write_text("A=b\nC=d\n")
    kube("create", "configmap", "dir", f"--from-file={tmp_path}/dir", f"--from-file=other={tmp_path}/env")
    kube("create", "configmap", "env", f"--from-env-file={tmp_path}/env")
    kube("create", "secret", "generic", "word", "--from-literal=a=b", "--type=example.com/word")
    kube(
        "create", "secret", "docker-registry", "pull", "--docker-server=r", "--docker-username=u", "--docker-password=p"
    )
    assert data(kube, "dir") == {"one": "1", "other": "A=b\nC=d\n"}
    found = kube.get("configmaps", "dir")
    assert found is not None
    assert found["binaryData"] == {"bytes": "/wA="}
    assert data(kube, "env") == {"A": "b", "C": "d"}
    types = {s["metadata"]["name"]: s["type"] for s in kube.objects("secrets")}
    assert types == {"word": "example.com/word", "pull": "kubernetes.io/dockerconfigjson"}


def test_a_dry_run_shows_and_makes_nothing(kube):
    for where in ("client", "server"):
        shown = kube("create", "cm", "ghost", "--from-literal=a=b", f"--dry-run={where}", "-o", "yaml").out
        assert "a: b" in shown
    assert "pod/ghost created (server dry run)" in kube("run", "ghost", "--image=box:1", "--dry-run=server").out
    assert kube.get("configmaps", "ghost") is None
    assert kube.get("pods", "ghost") is None


def test_what_is_there_already_is_not_created_again(kube):
    kube("create", "cm", "settings")
    assert 'configmaps "settings" already exists' in kube.fails("create", "cm", "settings")


def test_kinds_that_are_not_built_are_said_to_be_unknown(kube):
    said = kube.fails("create", "deployment", "web", "--image=box")
    assert "the server could not find the requested resource" in said
    assert 'doesn\'t have a resource type "deployments"' in kube.fails("get", "deployments")


def test_edit_opens_the_editor_and_stores_what_was_written(kube):
    kube.apply(settings())
    assert "edited" in kube("edit", "cm", "settings", env={"EDITOR": "sed -i s/blue/teal/"}).out
    assert data(kube) == {"color": "teal"}
    assert "Edit cancelled" in kube("edit", "cm", "settings", env={"EDITOR": "true"}).err


def test_an_edit_that_breaks_the_object_is_refused_and_kept(kube):
    kube.apply(pod("web"))
    said = kube.fails(
        "edit", "pod", "web", env={"EDITOR": "sed -i s/terminationGracePeriodSeconds:.*/hostNetwork:\\ 7/"}
    )
    assert "cannot unmarshal number" in said
    assert "kubectl replace -f" in said


def test_all_kinds_of_patch(kube):
    kube.apply(settings())
    kube("patch", "cm", "settings", "-p", '{"data":{"a":"1"}}')
    kube("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"color":null}}')
    kube("patch", "cm", "settings", "--type=json", "-p", '[{"op":"add","path":"/data/b","value":"2"}]')
    assert data(kube) == {"a": "1", "b": "2"}
    said = kube.fails("patch", "cm", "settings", "--type=json", "-p", '[{"op":"test","path":"/data/b","value":"3"}]')
    assert "testing value /data/b failed: test failed" in said
    assert ": :" not in said
    kube.apply(pod("web"))
    kube("patch", "pod", "web", "-p", '{"spec":{"containers":[{"name":"main","image":"box"}]}}')
    found = kube.get("pods", "web")
    assert found is not None
    assert found["spec"]["containers"][0]["command"] == ["sleep", "1000"]
    assert "pod updates may not change fields" in kube.fails("patch", "pod", "web", "-p", '{"spec":{"hostIPC":true}}')


def test_replace_needs_the_object_and_force_makes_it_anew(kube):
    manifest = json.dumps(settings(color="red"))
    assert "NotFound" in kube.fails("replace", "-f", "-", stdin=manifest)
    kube.apply(settings())
    kube("replace", "-f", "-", stdin=manifest)
    assert data(kube) == {"color": "red"}
    kube.apply(pod("web"))
    before = kube.get("pods", "web")
    kube("replace", "--force", "-f", "-", stdin=json.dumps(pod("web", FOREVER)))
    after = kube.get("pods", "web")
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] != after["metadata"]["uid"]


def test_diff_shows_what_apply_would_change(kube):
    kube.apply(settings())
    assert kube("diff", "-f", "-", stdin=json.dumps(settings())).out == ""
    shown = kube("diff", "-f", "-", stdin=json.dumps(settings(color="red")), code=1).out
    assert "-  color: blue" in shown
    assert "+  color: red" in shown


def test_unknown_and_repeated_fields_are_refused_warned_of_or_ignored(kube):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: odd}\ndata: {a: b}\ndata: {c: d}\nodd: 1\n"
    assert 'unknown field "odd"' in kube.fails("create", "-f", "-", "--validate=strict", stdin=text)
    warned = kube("create", "-f", "-", "--validate=warn", stdin=text.replace("data: {c: d}\n", ""))
    assert 'Warning: unknown field "odd"' in warned.err
    kube("delete", "cm", "odd")
    assert kube("create", "-f", "-", "--validate=ignore", stdin=text.replace("data: {c: d}\n", "")).err == ""


def test_a_kustomization_is_applied(kube, tmp_path):
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: my-\nresources: [cm.yaml]\nlabels: [{pairs: {team: a}}]\n"
        "secretGenerator: [{name: word, literals: [a=b]}]\n"
    )
    (tmp_path / "cm.yaml").write_text(json.dumps(settings()))
    kube("apply", "-k", str(tmp_path))
    assert data(kube, "my-settings") == {"color": "blue"}
    kube("delete", "-k", str(tmp_path))
    assert kube.get("configmaps", "my-settings") is None


# label, annotate, explain, discovery


def test_labels_and_annotations_are_put_on_and_taken_off(kube):
    kube.apply(settings())
    kube("label", "cm", "settings", "a=b")
    assert "already has a value" in kube.fails("label", "cm", "settings", "a=c")
    kube("label", "--overwrite", "cm", "settings", "a=c")
    kube("annotate", "cm", "settings", "note=hello")
    found = kube.get("configmaps", "settings")
    assert found is not None
    assert found["metadata"]["labels"] == {"a": "c"}
    assert found["metadata"]["annotations"]["note"] == "hello"
    kube("label", "cm", "settings", "a-")
    assert not (kube.get("configmaps", "settings") or {})["metadata"].get("labels")
    assert "consist of alphanumeric characters" in kube.fails("label", "cm", "settings", "a=b c")


def test_every_kind_is_explained(kube):
    for kind in ("pod", "cm", "secret", "sa", "pvc", "pv", "ns", "node", "event", "lease", "storageclass"):
        assert "DESCRIPTION" in kube("explain", kind).out
    assert "Restart policy" in kube("explain", "pod.spec.restartPolicy").out
    assert "initContainers" in kube("explain", "pods", "--recursive").out
    assert 'field "nope" does not exist' in kube.fails("explain", "pod.spec.nope")


def test_the_server_says_what_it_has(kube):
    assert "po           v1" in kube("api-resources").out
    assert kube("api-resources", "--namespaced=false", "-o", "name").out.split() >= ["namespaces"]
    assert "events.k8s.io/v1" in kube("api-versions").out.split()
    assert "Server Version: v1.33" in kube("version").out
    assert json.loads(kube("get", "--raw", "/version").out)["major"] == "1"
    assert "NotFound" in kube.fails("get", "--raw", "/nope")


# delete


def test_pods_are_deleted_by_name_label_file_and_all_together(kube):
    kube.apply(*(pod(name, FOREVER, labels={"app": name[0]}) for name in ("a1", "a2", "b1", "b2", "c1")))
    for name in ("a1", "a2", "b1", "b2", "c1"):
        kube.running(name)
    assert kube("delete", "pods", "-l", "app=a").out.count("deleted") == 2
    kube("delete", "-f", "-", stdin=json.dumps(pod("b1")))
    kube("delete", "pod/b2", "--wait=false")
    kube("delete", "pods", "--all")
    assert kube.objects("pods") == []
    assert kube("delete", "pod", "gone", "--ignore-not-found").out == ""


def test_a_forced_deletion_does_not_wait_for_the_process(kube):
    deaf = shell("trap '' TERM; echo deaf; while true; do sleep 1; done")
    kube.apply(pod("deaf", deaf, terminationGracePeriodSeconds=60))
    kube.running("deaf")
    began = time.monotonic()
    kube("delete", "pod", "deaf", "--force", "--grace-period=0")
    assert kube.get("pods", "deaf") is None
    assert time.monotonic() - began < 30


def test_a_second_deletion_shortens_the_grace_of_the_first(kube):
    deaf = shell("trap '' TERM; echo deaf; while true; do sleep 1; done")
    kube.apply(pod("deaf", deaf, terminationGracePeriodSeconds=60))
    kube.running("deaf")
    kube("delete", "pod", "deaf", "--wait=false")
    assert kube("get", "pod", "deaf", "--no-headers").out.split()[2] == "Terminating"
    kube("delete", "pod", "deaf", "--now")
    assert kube.get("pods", "deaf") is None


def test_a_namespace_goes_with_all_that_is_in_it(everywhere):
    everywhere("create", "namespace", "passing")
    kube = everywhere.within("passing")
    kube.apply(pod("web"), settings(), thing("PersistentVolumeClaim", "disk", spec=claim("1Mi")))
    kube.running("web")
    assert kube("delete", "namespace", "passing").out.startswith('namespace "passing" deleted')
    assert "NotFound" in kube.fails("get", "namespace", "passing")
    assert kube.objects("pods") == []
    assert kube.objects("configmaps") == []


def test_nothing_new_is_made_in_a_namespace_that_ends(everywhere):
    everywhere("create", "namespace", "ending")
    kube = everywhere.within("ending")
    kube.apply({**settings(), "metadata": {"name": "holder", "finalizers": ["example.com/hold"]}})
    kube("delete", "namespace", "ending", "--wait=false")
    assert "because it is being terminated" in kube.fails("create", "cm", "late")
    kube("patch", "cm", "holder", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kube("wait", "--for=delete", "namespace/ending", "--timeout=20s")


# wait, events, auth


def test_wait_ends_for_conditions_values_and_deletions(kube):
    kube.apply(pod("web", FOREVER))
    assert kube("wait", "--for=condition=Ready", "pod/web", "--timeout=20s").out == "pod/web condition met\n"
    kube("wait", "--for=jsonpath={.status.phase}=Running", "pod", "--all", "--timeout=20s")
    assert "timed out waiting" in kube.fails("wait", "--for=condition=Nope", "pod/web", "--timeout=1s")
    with kube.background("wait", "--for=delete", "pod/web", "--timeout=20s") as waiting:
        kube("delete", "pod", "web")
        assert waiting.wait(20) == 0


def test_events_tell_a_pods_story(kube):
    kube.apply(pod("web"))
    kube.running("web")
    told = kube("events", "--for", "pod/web").out
    for word in ("Scheduled", "Pulled", "Created", "Started"):
        assert word in told
    assert "Started container main" in kube("get", "events", "--field-selector=reason=Started").out
    assert "No events" in kube("events", "--types=Warning").err


def test_who_may_what(kube):
    assert kube("auth", "can-i", "delete", "pods", "--subresource=log").out == "yes\n"
    assert "kubernetes-admin" in kube("auth", "whoami").out
    assert kube("auth", "can-i", "--list").out.startswith("Resources")


def test_a_token_of_a_service_account_is_somebody(kube):
    kube("create", "sa", "robot")
    token = kube("create", "token", "robot", "--duration=10m").out.strip()
    without = {"KUBECONFIG": "/dev/null"}
    ca = str(kube.instance.root / "kubernetes" / "ca.crt")
    server = f"--server=https://127.0.0.1:{kube.instance.kubernetes_port}"
    said = kube("auth", "whoami", server, f"--certificate-authority={ca}", f"--token={token}", env=without).out
    assert f"system:serviceaccount:{kube.namespace}:robot" in said
    refused = kube.fails("get", "pods", server, f"--certificate-authority={ca}", "--token=wrong", env=without)
    assert "must be logged in" in refused or "Unauthorized" in refused


def test_usage_of_resources_is_said_to_be_unknown(kube):
    assert "Metrics API not available" in kube.fails("top", "pods")


# the node


def test_a_node_is_cordoned_drained_and_taken_back(own_platform):
    """Alone, because it ends every pod."""
    own_platform("tag", "box", IMAGE)
    kube = Kubectl.of(own_platform)
    [node] = kube.json("get", "nodes")["items"]
    name = node["metadata"]["name"]
    kube.until("default", lambda _: True, resource="serviceaccounts")
    kube.apply(pod("web", FOREVER))
    kube.running("web")
    said = kube("drain", name, "--force", "--delete-emptydir-data", "--ignore-daemonsets").out
    assert "pod/web evicted" in said
    assert kube.objects("pods") == []
    kube.apply(pod("later"))
    assert "1 node(s) were unschedulable" in kube.event("later", "FailedScheduling")
    kube("uncordon", name)
    kube.running("later")
