"""Volumes of pods: what lasts, what is gone, what changes while it is looked at."""

import pytest

from kestrel.testing.instance import wait_until
from kestrel.testing.kubectl import container, pod, shell, thing

pytestmark = [pytest.mark.root, pytest.mark.clients]

MOUNT = [{"name": "v", "mountPath": "/v"}]


def using(name: str, volume: dict, script: str = "sleep 1000", *, mounts=MOUNT, **spec):
    """Return a pod that has a volume at /v."""
    return pod(name, shell(script, volumeMounts=mounts), volumes=[{"name": "v", **volume}], **spec)


def claim(name: str, size: str = "5Mi", **spec):
    """Return a claim."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return thing("PersistentVolumeClaim", name, spec=wanted)


def of_claim(name: str) -> dict:
    """Return the volume of a claim."""
    return {"persistentVolumeClaim": {"claimName": name}}


def test_what_is_written_to_a_claim_lasts_and_all_else_is_gone(kube):
    kube.apply(
        claim("disk"), using("first", of_claim("disk"), "echo kept > /v/file; echo lost > /home/file; sleep 1000")
    )
    kube.running("first")
    kube("delete", "pod", "first")
    kube.apply(using("second", of_claim("disk")))
    kube.running("second")
    assert kube("exec", "second", "--", "sh", "-c", "cat /v/file; ls /home").out == "kept\n"


def test_a_claim_is_bound_used_and_released(kube):
    kube.apply(claim("disk"))
    bound = kube.until("disk", lambda c: c["status"]["phase"] == "Bound", resource="persistentvolumeclaims")
    assert bound["status"]["capacity"] == {"storage": "5Mi"}
    kube.apply(using("user", of_claim("disk")))
    kube.running("user")
    kube("delete", "pvc", "disk", "--wait=false")
    found = kube.get("persistentvolumeclaims", "disk")
    assert found is not None, "a claim in use must stay"
    assert found["metadata"]["deletionTimestamp"]
    kube("delete", "pod", "user")
    kube.gone("persistentvolumeclaims", "disk")
    wait_until(lambda: kube.api.get(f"/api/v1/persistentvolumes/{bound['spec']['volumeName']}") is None)


def test_a_claim_that_nobody_can_meet_keeps_its_pod_waiting(kube):
    kube.apply(
        claim("odd", storageClassName="nosuch"), using("waiter", of_claim("odd")), using("orphan", of_claim("none"))
    )
    assert "unbound immediate PersistentVolumeClaims" in kube.event("waiter", "FailedScheduling")
    assert 'persistentvolumeclaim "none" not found' in kube.event("orphan", "FailedScheduling")
    kube.apply(claim("none"))
    kube.running("orphan")


def test_an_empty_directory_is_shared_and_one_of_memory_is_limited(kube):
    kube.apply(
        pod(
            "pair",
            shell("echo hi > /v/x; sleep 1000", "a", volumeMounts=MOUNT),
            shell("sleep 1000", "b", volumeMounts=MOUNT),
            volumes=[{"name": "v", "emptyDir": {}}],
        ),
        using("memory", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    )
    kube.running("pair")
    kube.running("memory")
    assert kube("exec", "pair", "-c", "b", "--", "cat", "/v/x").out == "hi\n"
    said = kube.fails("exec", "memory", "--", "dd", "if=/dev/zero", "of=/v/x", "bs=1k", "count=2000")
    assert "No space left on device" in said


def test_a_directory_of_the_host_is_checked_and_made(kube, tmp_path):
    (tmp_path / "file").write_text("from the host\n")
    at = lambda name, kind: {"hostPath": {"path": str(tmp_path / name), "type": kind}}  # noqa: E731 - a table follows
    kube.apply(
        using("there", at("", "Directory")),
        using("made", at("new/deep", "DirectoryOrCreate")),
        using("wrong", at("file", "Directory")),
        using("absent", at("nope", "File")),
    )
    kube.running("there")
    assert kube("exec", "there", "--", "cat", "/v/file").out == "from the host\n"
    kube.running("made")
    assert (tmp_path / "new" / "deep").is_dir()
    assert "is not a directory" in kube.event("wrong", "FailedMount")
    assert "hostPath type check failed" in kube.event("absent", "FailedMount")


def test_changes_of_maps_and_secrets_reach_running_containers(kube):
    kube.apply(
        thing("ConfigMap", "settings", data={"color": "blue", "size": "big"}),
        thing("Secret", "word", stringData={"pass": "one"}),
        pod(
            "reader",
            container(volumeMounts=[{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}]),
            volumes=[
                {"name": "c", "configMap": {"name": "settings"}},
                {"name": "s", "secret": {"secretName": "word", "defaultMode": 0o400}},
            ],
        ),
    )
    kube.running("reader")
    assert kube("exec", "reader", "--", "sh", "-c", "cat /c/color /s/pass; stat -L -c %a /s/pass").out == "blueone400\n"
    kube("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"color":"red","size":null}}')
    kube("patch", "secret", "word", "-p", '{"stringData":{"pass":"two"}}')
    read = ("exec", "reader", "--", "sh", "-c", "cat /c/color /s/pass; ls /c")
    wait_until(lambda: kube(*read).out == "redtwocolor\n", every=0.2)


def test_a_projected_volume_joins_its_sources(kube):
    kube.apply(
        thing("ConfigMap", "settings", data={"color": "blue"}),
        thing("Secret", "word", stringData={"pass": "hunter2"}),
        using(
            "joined",
            {
                "projected": {
                    "sources": [
                        {"configMap": {"name": "settings", "items": [{"key": "color", "path": "deep/paint"}]}},
                        {"secret": {"name": "word"}},
                        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                    ]
                }
            },
            labels={"app": "web"},
        ),
    )
    kube.running("joined")
    told = kube(
        "exec", "joined", "--", "sh", "-c", "cat /v/deep/paint /v/pass; echo; cat /v/labels; echo; wc -c < /v/token"
    ).out
    assert told.startswith('bluehunter2\napp="web"')
    assert int(told.split()[-1]) > 100
    kube("label", "pod", "joined", "tier=front")
    wait_until(lambda: 'tier="front"' in kube("exec", "joined", "--", "cat", "/v/labels").out, every=0.2)


def test_sub_paths_and_read_only_mounts(kube):
    mounts = [
        {"name": "v", "mountPath": "/one", "subPath": "a"},
        {"name": "v", "mountPath": "/all", "readOnly": True},
    ]
    kube.apply(using("split", {"emptyDir": {}}, "echo x > /one/file; sleep 1000", mounts=mounts))
    kube.running("split")
    assert kube("exec", "split", "--", "cat", "/all/a/file").out == "x\n"
    assert "Read-only file system" in kube.fails("exec", "split", "--", "touch", "/all/b")


def test_a_volume_of_a_kind_that_is_not_built_says_so(kube):
    kube.apply(using("remote", {"nfs": {"server": "a", "path": "/b"}}))
    assert "not supported: nfs" in kube.event("remote", "FailedMount")


def test_a_pod_that_fills_its_directory_beyond_the_limit_is_evicted(kube):
    script = "dd if=/dev/zero of=/v/x bs=1k count=3000; sleep 1000"
    kube.apply(using("hog", {"emptyDir": {"sizeLimit": "1Mi"}}, script))
    status = kube.phase("hog", "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"] == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '
    assert 'exceeds the limit "1Mi"' in kube.event("hog", "Evicted")
