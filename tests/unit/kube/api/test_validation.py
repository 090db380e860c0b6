import copy

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import defaults, fields, scheme, validation


def resource(kind, group=""):
    return scheme.by_kind(group, "v1", kind)


POD = resource("Pod")


def pod(**spec):
    base = {"containers": [{"name": "c", "image": "i"}]}
    obj = {"metadata": {"name": "p", "namespace": "n"}, "spec": {**base, **spec}}
    return defaults.apply(POD, obj)


def container(**fields):
    return pod(containers=[{"name": "c", "image": "i", **fields}])


def errors(obj, old=None, kind=POD, subresource=""):
    return [str(error) for error in validation.validate(kind, obj, old, subresource)]


def test_a_good_pod_passes():
    found = pod(
        volumes=[
            {"name": "e", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "h", "hostPath": {"path": "/x", "type": "Directory"}},
            {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "a/b"}]}},
            {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "v", "persistentVolumeClaim": {"claimName": "c"}},
        ],
        initContainers=[{"name": "i", "image": "x", "restartPolicy": "Always"}],
        tolerations=[{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}],
        containers=[
            {
                "name": "c",
                "image": "i",
                "volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "h", "mountPath": "/h"}],
                "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 80, "protocol": "UDP"}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}}],
                "livenessProbe": {"httpGet": {"port": "web"}},
                "readinessProbe": {"exec": {"command": ["true"]}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "securityContext": {"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            }
        ],
    )
    assert errors(found) == []


@pytest.mark.parametrize(
    ("obj", "sentence"),
    [
        (pod(containers=[]), "spec.containers: Required value"),
        (container(image=""), "spec.containers[0].image: Required value"),
        (container(name=""), "spec.containers[0].name: Required value"),
        (
            pod(containers=[{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]),
            'spec.containers[1].name: Duplicate value: "c"',
        ),
        (
            pod(restartPolicy="Sometimes"),
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
        ),
        (
            container(imagePullPolicy="Maybe"),
            'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always"',
        ),
        (container(volumeMounts=[{"name": "x", "mountPath": "/x"}]), 'volumeMounts[0].name: Not found: "x"'),
        (container(ports=[{"containerPort": 70000}]), "Invalid value: 70000: must be between 1 and 65535, inclusive"),
        (container(ports=[{}]), "spec.containers[0].ports[0].containerPort: Required value"),
        (
            container(ports=[{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
            'spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//5"',
        ),
        (container(env=[{"name": ""}]), "spec.containers[0].env[0].name: Required value"),
        (container(env=[{"name": "a=b"}]), "printable ASCII characters other than '='"),
        (
            container(env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            "may not be specified when `value` is not empty",
        ),
        (
            container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            'fieldRef.fieldPath: Unsupported value: "spec.x"',
        ),
        (
            container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (container(resources={"limits": {"cpu": "-1"}}), "must be greater than or equal to 0"),
        (container(resources={"limits": {"cpus": "1"}}), "must be a standard resource for containers"),
        (container(livenessProbe={}), "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        (
            container(livenessProbe={"exec": {"command": ["a"]}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            container(lifecycle={"preStop": {"httpGet": {"port": 0}}}),
            "lifecycle.preStop.httpGet.port: Invalid value: 0",
        ),
        (pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]), "may not specify more than 1 volume"),
        (pod(volumes=[{"name": "v"}, {"name": "v"}]), 'spec.volumes[1].name: Duplicate value: "v"'),
        (pod(volumes=[{"name": "V"}]), "a lowercase RFC 1123 label must consist of"),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/a/../b"}}]), "must not contain '..'"),
        (pod(volumes=[{"name": "v", "secret": {}}]), "spec.volumes[0].secret.secretName: Required value"),
        (pod(volumes=[{"name": "v", "secret": {"secretName": "x", "defaultMode": 9999}}]), "between 0 and 0777"),
        (pod(volumes=[{"name": "v", "persistentVolumeClaim": {}}]), "claimName: Required value"),
        (pod(terminationGracePeriodSeconds=-1), "must be greater than or equal to 0"),
        (pod(activeDeadlineSeconds=0), "must be between 1 and 2147483647, inclusive"),
        (pod(nodeSelector={"a": "b c"}), 'spec.nodeSelector: Invalid value: "b c": a valid label must be'),
        (pod(tolerations=[{"operator": "Exists", "value": "x"}]), "value must be empty when `operator` is 'Exists'"),
        (pod(hostAliases=[{"ip": "one"}]), "must be a valid IP address"),
        (pod(dnsPolicy="None"), "must provide at least one DNS nameserver"),
        (pod(shareProcessNamespace=True, hostPID=True), "cannot both be enabled"),
        (pod(ephemeralContainers=[{"name": "e", "image": "i"}]), "spec.ephemeralContainers: Forbidden: cannot be set"),
        (container(restartPolicy="Always"), "may not be set for non-init containers"),
        (container(securityContext={"runAsUser": -1}), "must be between 0 and 2147483647, inclusive"),
        (
            container(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (container(volumeMounts=[{"name": "x", "mountPath": "/x", "subPath": "/y"}]), "must be a relative path"),
    ],
)
def test_a_bad_pod_is_refused_in_kubernetes_words(obj, sentence):
    found = errors(obj)
    assert any(sentence in error for error in found), found


def test_metadata_is_checked_for_every_kind():
    config = resource("ConfigMap")
    bad = {
        "metadata": {
            "name": "Upper",
            "namespace": "n",
            "labels": {"-a": "x", "b": "y z"},
            "annotations": {"a/b/c": "x"},
            "finalizers": ["mine"],
            "ownerReferences": [{"kind": "Pod"}],
        }
    }
    found = errors(bad, kind=config)
    assert found[0] == (
        'metadata.name: Invalid value: "Upper": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
        "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
        r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )
    text = "\n".join(found)
    for part in ("metadata.labels", "metadata.annotations", "metadata.finalizers", "ownerReferences[0].uid"):
        assert part in text
    assert errors({"metadata": {"namespace": "n"}}, kind=config) == [
        "metadata.name: Required value: name or generateName is required"
    ]
    assert "not allowed on this type" in errors({"metadata": {"name": "x", "namespace": "n"}}, kind=resource("Node"))[0]
    assert errors({"metadata": {"name": "a.b"}}, kind=resource("Namespace"))[0].endswith("must not contain dots")


def changed(old, path, value):
    new = copy.deepcopy(old)
    target = new
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return new


def test_a_running_pod_may_change_its_image_and_little_else():
    old = pod(tolerations=[{"key": "a", "operator": "Exists"}], activeDeadlineSeconds=10)
    assert errors(changed(old, ["spec", "containers", 0, "image"], "new"), old) == []
    assert errors(changed(old, ["spec", "activeDeadlineSeconds"], 5), old) == []
    more = [*old["spec"]["tolerations"], {"key": "b", "operator": "Exists"}]
    assert errors(changed(old, ["spec", "tolerations"], more), old) == []
    assert errors(changed(old, ["metadata", "labels"], {"a": "b"}), old) == []

    found = errors(changed(old, ["spec", "containers", 0, "command"], ["x"]), old)
    assert found[0].startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations)"
    )
    assert 'spec.containers[name="c"].command' in found[0]
    found = errors(changed(old, ["spec", "containers"], []), old)
    assert found == ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    assert "existing toleration" in errors(changed(old, ["spec", "tolerations"], []), old)[0]
    assert "less than or equal to previous" in errors(changed(old, ["spec", "activeDeadlineSeconds"], 11), old)[0]


def test_names_and_uids_never_change():
    old = {"metadata": {"name": "a", "namespace": "n", "uid": "1"}}
    new = {"metadata": {"name": "a", "namespace": "n", "uid": "2"}}
    assert errors(new, old, resource("ConfigMap")) == ['metadata.uid: Invalid value: "2": field is immutable']


def test_an_object_that_is_going_gets_no_new_finalizers():
    old = {"metadata": {"name": "a", "namespace": "n", "deletionTimestamp": "x", "finalizers": ["a/b"]}}
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = ["a/b", "c/d"]
    assert "no new finalizers can be added if the object is being deleted" in errors(new, old, resource("ConfigMap"))[0]


def test_immutable_data_stays():
    meta = {"name": "a", "namespace": "n"}
    for kind in ("ConfigMap", "Secret"):
        old = defaults.apply(resource(kind), {"metadata": meta, "data": {"a": "eA=="}, "immutable": True})
        new = {**old, "data": {"a": "eQ=="}}
        assert errors(new, old, resource(kind)) == ["data: Forbidden: field is immutable when `immutable` is set"]
        thawed = {**old, "immutable": False}
        assert errors(thawed, old, resource(kind)) == [
            "immutable: Forbidden: field is immutable when `immutable` is set"
        ]


def test_config_maps_and_secrets_have_sane_keys_and_sizes():
    meta = {"name": "a", "namespace": "n"}
    config = resource("ConfigMap")
    assert "data[a b]: Invalid value" in errors({"metadata": meta, "data": {"a b": ""}}, kind=config)[0]
    assert "duplicate of key" in errors({"metadata": meta, "data": {"a": ""}, "binaryData": {"a": ""}}, kind=config)[0]
    assert "Too long" in errors({"metadata": meta, "data": {"a": "x" * 1_100_000}}, kind=config)[0]
    secret = {"metadata": meta, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}
    assert errors(secret, kind=resource("Secret")) == ["data[tls.key]: Required value"]
    old = {"metadata": meta, "type": "Opaque"}
    assert "field is immutable" in errors({"metadata": meta, "type": "x/y"}, old, resource("Secret"))[0]


def test_what_is_not_base64_is_refused_when_read():
    with pytest.raises(InvalidArgument, match="illegal base64 data at input byte 4"):
        fields.read(resource("Secret"), {"data": {"a": "abcd!"}})


def claim(**spec):
    base = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    obj = {"metadata": {"name": "c", "namespace": "n"}, "spec": {**base, **spec}}
    return defaults.apply(resource("PersistentVolumeClaim"), obj)


def test_claims_ask_for_something_and_stay_as_they_are():
    kind = resource("PersistentVolumeClaim")
    assert errors(claim(), kind=kind) == []
    assert errors(claim(accessModes=[]), kind=kind) == [
        "spec.accessModes: Required value: at least 1 access mode is required"
    ]
    assert "Required value" in errors(claim(resources={}), kind=kind)[0]
    assert "greater than zero" in errors(claim(resources={"requests": {"storage": "0"}}), kind=kind)[0]
    assert errors(claim(volumeName="pv", storageClassName="s"), claim(), kind) == []
    assert "spec is immutable after creation" in errors(claim(volumeName="b"), claim(volumeName="a"), kind)[0]
    bound = {**claim(), "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    assert errors(claim(resources={"requests": {"storage": "2Gi"}}), bound, kind) == []
    assert "can not be less than" in errors(claim(resources={"requests": {"storage": "1Mi"}}), bound, kind)[0]


def test_volumes_have_one_source_that_stays():
    kind = resource("PersistentVolume")

    def volume(**spec):
        base = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
        return defaults.apply(kind, {"metadata": {"name": "v"}, "spec": {**base, **spec}})

    good = volume(hostPath={"path": "/x"})
    assert errors(good, kind=kind) == []
    assert errors(volume(), kind=kind) == ["spec: Required value: must specify a volume type"]
    assert "node affinity" in errors(volume(local={"path": "/x"}), kind=kind)[0]
    assert "is immutable after creation" in errors(volume(hostPath={"path": "/y"}), good, kind)[0]


def test_other_kinds_have_their_rules():
    meta = {"name": "a", "namespace": "n"}
    lease = {"metadata": meta, "spec": {"leaseDurationSeconds": 0}}
    assert "must be greater than 0" in errors(lease, kind=resource("Lease", "coordination.k8s.io"))[0]
    assert errors({"target": {}}, kind=resource("Binding")) == ["target.name: Required value"]
    event = {"metadata": meta, "involvedObject": {"namespace": "other"}}
    assert "does not match event.namespace" in errors(event, kind=resource("Event"))[0]
    storage = resource("StorageClass", "storage.k8s.io")
    old = defaults.apply(storage, {"metadata": {"name": "s"}, "provisioner": "x/y"})
    assert errors(old, kind=storage) == []
    assert errors({**old, "provisioner": "z"}, old, storage) == [
        "provisioner: Forbidden: updates to provisioner are forbidden."
    ]
    node = {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "k", "effect": "Sometimes"}]}}
    assert "spec.taints[0].effect: Unsupported value" in errors(node, kind=resource("Node"))[0]
