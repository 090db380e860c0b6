from datetime import UTC, datetime

import pytest

from kestrel.kube.api import events, scheme, tables

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
HOUR_AGO = "2026-01-02T11:00:00Z"


def shown(kind, obj, group=""):
    resource = scheme.by_kind(group, "v1", kind)
    names = [column["name"] for column in tables.columns(resource)]
    found = tables.cells(resource, {"metadata": {"name": "x", "creationTimestamp": HOUR_AGO}, **obj}, NOW)
    return dict(zip(names, found, strict=True))


def pod(phase="Running", containers=(), init=(), specs=1, init_specs=(), **status):
    return {
        "metadata": {"name": "p", "creationTimestamp": HOUR_AGO},
        "spec": {"containers": [{}] * specs, "initContainers": list(init_specs)},
        "status": {
            "phase": phase,
            "containerStatuses": list(containers),
            "initContainerStatuses": list(init),
            **status,
        },
    }


RUNNING = {"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}


@pytest.mark.parametrize(
    ("obj", "ready", "status"),
    [
        (pod("Pending"), "0/1", "Pending"),
        (pod("Running", [RUNNING]), "1/1", "Running"),
        (pod("Pending", [{"state": {"waiting": {"reason": "ContainerCreating"}}}]), "0/1", "ContainerCreating"),
        (pod("Running", [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]), "0/1", "CrashLoopBackOff"),
        (pod("Pending", [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]), "0/1", "ImagePullBackOff"),
        (pod("Succeeded", [{"state": {"terminated": {"reason": "Completed"}}}]), "0/1", "Completed"),
        (pod("Failed", [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]), "0/1", "OOMKilled"),
        (pod("Failed", [{"state": {"terminated": {"exitCode": 3}}}]), "0/1", "ExitCode:3"),
        (pod("Failed", [{"state": {"terminated": {"exitCode": 137, "signal": 9}}}]), "0/1", "Signal:9"),
        (pod("Failed", reason="Evicted"), "0/1", "Evicted"),
        (
            pod("Pending", init=[{"name": "i", "state": {"running": {}}}], init_specs=[{"name": "i"}, {"name": "j"}]),
            "0/1",
            "Init:0/2",
        ),
        (
            pod(
                "Pending",
                init=[
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}},
                ],
                init_specs=[{"name": "i"}, {"name": "j"}],
            ),
            "0/1",
            "Init:1/2",
        ),
        (
            pod("Pending", init=[{"name": "i", "state": {"terminated": {"exitCode": 2}}}], init_specs=[{"name": "i"}]),
            "0/1",
            "Init:ExitCode:2",
        ),
        (
            pod(
                "Pending",
                init=[{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
                init_specs=[{"name": "i"}],
            ),
            "0/1",
            "Init:CrashLoopBackOff",
        ),
        (
            pod(
                "Running",
                [RUNNING],
                init=[{"name": "s", "started": True, "ready": True, "state": {"running": {}}}],
                init_specs=[{"name": "s", "restartPolicy": "Always"}],
            ),
            "2/2",
            "Running",
        ),
        (
            pod("Running", [RUNNING, {"state": {"terminated": {"reason": "Completed"}}}], specs=2),
            "1/2",
            "NotReady",
        ),
        (pod("Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]), "0/1", "SchedulingGated"),
    ],
)
def test_a_pod_s_status_is_the_word_kubectl_prints(obj, ready, status):
    found = shown("Pod", obj)
    assert (found["Ready"], found["Status"]) == (ready, status)


def test_a_pod_that_goes_is_terminating_unless_it_has_ended():
    going = pod("Running", [RUNNING])
    going["metadata"]["deletionTimestamp"] = HOUR_AGO
    assert shown("Pod", going)["Status"] == "Terminating"
    ended = pod("Succeeded", [{"state": {"terminated": {"reason": "Completed"}}}])
    ended["metadata"]["deletionTimestamp"] = HOUR_AGO
    assert shown("Pod", ended)["Status"] == "Completed"


def test_restarts_say_when_the_last_one_was():
    again = {**RUNNING, "restartCount": 3, "lastState": {"terminated": {"finishedAt": "2026-01-02T11:58:30Z"}}}
    assert shown("Pod", pod("Running", [again]))["Restarts"] == "3 (90s ago)"
    assert shown("Pod", pod("Running", [RUNNING]))["Restarts"] == "0"


def test_a_pod_has_its_wide_columns():
    obj = pod("Running", [RUNNING], podIPs=[{"ip": "10.0.0.1"}])
    obj["spec"]["nodeName"] = "n1"
    found = shown("Pod", obj)
    assert (found["IP"], found["Node"], found["Nominated Node"], found["Readiness Gates"]) == (
        "10.0.0.1", "n1", "<none>", "<none>",
    )  # fmt: skip
    definitions = tables.columns(scheme.by_kind("", "v1", "Pod"))
    assert [d["name"] for d in definitions if not d["priority"]] == ["Name", "Ready", "Status", "Restarts", "Age"]


def test_nodes_show_readiness_roles_and_addresses():
    found = shown(
        "Node",
        {
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian"},
            },
        },
    )
    assert found["Status"] == "Ready,SchedulingDisabled"
    assert (found["Roles"], found["Version"], found["Age"]) == ("control-plane", "v1.33.0", "<unknown>")
    assert (found["Internal-IP"], found["External-IP"], found["OS-Image"]) == ("10.0.0.1", "<none>", "Debian")
    assert found["Kernel-Version"] == "<unknown>"
    assert shown("Node", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})["Status"] == "NotReady"


def test_the_other_kinds_show_what_kubectl_shows():
    assert shown("ConfigMap", {"data": {"a": ""}, "binaryData": {"b": ""}})["Data"] == 2
    assert shown("Secret", {"type": "Opaque", "data": {"a": ""}})["Type"] == "Opaque"
    assert shown("ServiceAccount", {}) == {"Name": "x", "Secrets": 0, "Age": "60m"}
    assert shown("Namespace", {"status": {"phase": "Active"}})["Status"] == "Active"
    assert shown("Lease", {"spec": {"holderIdentity": "n"}}, "coordination.k8s.io")["Holder"] == "n"
    claim = shown("PersistentVolumeClaim", {
        "spec": {"volumeName": "pv", "storageClassName": "local"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    })  # fmt: skip
    assert list(claim.values()) == ["x", "Bound", "pv", "1Gi", "RWO", "local", "<unset>", "60m", "<unset>"]
    assert shown("PersistentVolumeClaim", {"status": {"phase": "Pending"}})["Capacity"] == ""
    volume = shown("PersistentVolume", {
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                 "claimRef": {"namespace": "n", "name": "c"}, "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Bound"},
    })  # fmt: skip
    assert (volume["Access Modes"], volume["Claim"], volume["Status"]) == ("RWO,RWX", "n/c", "Bound")
    storage = {
        "metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "x",
    }
    assert shown("StorageClass", storage, "storage.k8s.io")["Name"] == "s (default)"


def test_events_show_when_and_what():
    event = {
        "type": "Warning",
        "reason": "Failed",
        "message": " no such image\n",
        "count": 4,
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": HOUR_AGO,
        "lastTimestamp": "2026-01-02T11:59:55Z",
    }
    found = shown("Event", event)
    assert found["Last Seen"] == "5s"
    assert found["First Seen"] == "60m"
    assert (found["Object"], found["Message"], found["Source"]) == ("pod/p", "no such image", "kubelet, n1")
    assert found["Count"] == 4
    new = {"involvedObject": {}, "eventTime": HOUR_AGO}
    assert (shown("Event", new)["Last Seen"], shown("Event", new)["Count"]) == ("60m", 1)


def test_an_unknown_kind_shows_name_and_age():
    crow = scheme.Resource(group="example.com", kind="Crow", plural="crows", singular="crow")
    assert tables.cells(crow, {"metadata": {"name": "c", "creationTimestamp": HOUR_AGO}}, NOW) == ["c", "60m"]
    assert [d["name"] for d in tables.columns(crow)] == ["Name", "Age"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (-1, "0s"), (-5, "<invalid>"), (119, "119s"), (120, "2m"), (200, "3m20s"), (599, "9m59s"),
        (600, "10m"), (10799, "179m"), (10800, "3h"), (11000, "3h3m"), (28800, "8h"), (172799, "47h"), (172800, "2d"),
        (180000, "2d2h"), (691200, "8d"), (63072000, "2y"), (63158400, "2y1d"), (252288000, "8y"),
    ],
)  # fmt: skip
def test_ages_are_rounded_as_kubectl_does(seconds, text):
    assert tables.duration(seconds) == text


def test_every_column_has_a_source_that_exists():
    for row in scheme.RESOURCES:
        for column in row.columns:
            assert column.source.startswith(".") or column.source in tables.CELLS, column


def test_every_kind_prints_an_empty_object():
    for row in scheme.RESOURCES:
        assert len(tables.cells(row, {"metadata": {"name": "x"}}, NOW)) == len(tables.columns(row))


def test_events_change_faces_without_loss():
    event = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "p"}, "count": 1,
        "message": "m", "source": {"component": "c"}, "reportingComponent": "r", "eventTime": None, "action": "a",
    }  # fmt: skip
    new = events.from_core(event)
    assert (new["apiVersion"], new["note"], new["regarding"]) == ("events.k8s.io/v1", "m", {"name": "p"})
    assert events.to_core(new) == event
