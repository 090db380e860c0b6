import copy

import pytest

from kestrel.kube.api import defaults, scheme

POD = scheme.by_kind("", "v1", "Pod")


def test_a_minimal_pod_gets_what_kubernetes_documents():
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    defaults.apply(POD, pod)
    assert pod["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "nginx",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


def test_defaults_never_replace_what_was_said_and_settle_at_once():
    pod = {
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": False,
            "serviceAccount": "old",
            "hostNetwork": True,
            "initContainers": [{"name": "i", "image": "a:1"}],
            "containers": [
                {
                    "name": "c",
                    "image": "a@sha256:00",
                    "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                    "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 3},
                    "readinessProbe": {"grpc": {"port": 1}},
                    "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
                    "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                }
            ],
            "volumes": [
                {"name": "none"},
                {"name": "s", "secret": {"secretName": "x"}},
                {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ],
        }
    }
    defaults.apply(POD, pod)
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 0)
    assert spec["serviceAccountName"] == "old"
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["ports"] == [
        {"containerPort": 80, "protocol": "TCP", "hostPort": 80},
        {"containerPort": 53, "protocol": "UDP", "hostPort": 53},
    ]
    assert container["livenessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "periodSeconds": 3,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    assert spec["volumes"][0] == {"name": "none", "emptyDir": {}}
    assert spec["volumes"][1]["secret"]["defaultMode"] == 420
    assert spec["volumes"][2]["hostPath"]["type"] == ""
    assert spec["volumes"][3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600
    again = copy.deepcopy(pod)
    assert defaults.apply(POD, again) == pod


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image, policy):
    assert defaults.pull_policy(image) == policy


def test_other_kinds_have_their_defaults():
    def filled(group, kind, obj):
        return defaults.apply(scheme.by_kind(group, "v1", kind), obj)

    assert filled("", "Secret", {"stringData": {"a": "b"}}) == {"type": "Opaque", "data": {"a": "Yg=="}}
    assert filled("", "Namespace", {"metadata": {"name": "n"}})["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "n"
    }
    assert filled("", "PersistentVolumeClaim", {})["spec"] == {"volumeMode": "Filesystem", "resources": {}}
    assert filled("", "PersistentVolume", {})["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert filled("storage.k8s.io", "StorageClass", {}) == {"reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}
    assert filled("", "ConfigMap", {"data": {}}) == {"data": {}}
