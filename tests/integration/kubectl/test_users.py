"""Users of a pod's own: what `hostUsers` says, who has them without saying, and that nothing of a pod is lost by it."""

import json
import os

import pytest

from kestrel.testing.kubectl import IMAGE, container, pod, shell, status_of, thing

pytestmark = [pytest.mark.root, pytest.mark.clients]

HOSTS = ["0", "0", "4294967295"]


def mapping(kube, name: str, *flags: str) -> list[str]:
    """Return the map of users that a container of a pod has."""
    return kube("exec", name, *flags, "--", "cat", "/proc/self/uid_map").out.split()


def rights(**context) -> dict:
    return {"securityContext": context}


def test_a_pod_that_says_nothing_has_users_that_all_its_containers_share(kube):
    kube.apply(pod("two", shell("sleep 1000"), container("other", "sleep", "1000"), shareProcessNamespace=True))
    kube.running("two")
    first, second = mapping(kube, "two", "-c", "main"), mapping(kube, "two", "-c", "other")
    assert first == second != HOSTS
    assert "sleep 1000" in kube("exec", "two", "-c", "other", "--", "ps").out
    kube.apply(pod("another", shell("sleep 1000")))
    kube.running("another")
    assert mapping(kube, "another") not in (first, HOSTS)


@pytest.mark.parametrize(
    ("name", "spec", "context"),
    [
        ("asked", {"hostUsers": True}, {}),
        ("network", {"hostNetwork": True}, {}),
        ("processes", {"hostPID": True}, {}),
        ("memory", {"hostIPC": True}, {}),
        ("privileged", {}, {"privileged": True}),
        ("admin", {}, {"capabilities": {"add": ["SYS_ADMIN"]}}),
        ("number", {}, {"runAsUser": 1_000_650_000}),
    ],
)
def test_who_asks_for_something_of_the_host_has_its_users(kube, name, spec, context):
    kube.apply(pod(name, shell("sleep 1000", **rights(**context)), **spec))
    kube.running(name)
    assert mapping(kube, name) == HOSTS


def test_only_the_container_that_asks_has_the_hosts_users(kube):
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    kube.apply(
        pod(
            "mixed",
            shell("echo plain >/v/plain; sleep 1000", **mounts),
            shell("echo strong >/v/strong; sleep 1000", "strong", **mounts, **rights(privileged=True)),
            volumes=[{"name": "v", "emptyDir": {}}],
        )
    )
    kube.running("mixed")
    assert mapping(kube, "mixed", "-c", "main") != HOSTS
    assert mapping(kube, "mixed", "-c", "strong") == HOSTS
    for name in ("main", "strong"):
        shown = kube("exec", "mixed", "-c", name, "--", "stat", "-c", "%u", "/v/plain", "/v/strong").out
        assert shown.split() == ["0", "0"]


def test_a_pod_that_insists_has_users_of_its_own_and_rights_over_them_alone(kube):
    script = "mount -t tmpfs none /tmp && echo mounted; sleep 1000"
    unmasked = rights(privileged=True, procMount="Unmasked")
    kube.apply(pod("own", shell(script, **unmasked), hostUsers=False))
    kube.running("own")
    assert mapping(kube, "own") != HOSTS
    assert kube("logs", "own").out == "mounted\n"
    assert "denied" in kube.fails("exec", "own", "--", "sh", "-c", "echo 1 >/proc/sys/kernel/panic")


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "hostIPC"])
def test_such_a_pod_cannot_have_namespaces_of_the_host(kube, field):
    odd = pod("odd", shell("true"), hostUsers=False, **{field: True})
    said = kube.fails("apply", "-f", "-", stdin=json.dumps(odd))
    assert f"spec.{field}: Forbidden: when `hostUsers` is false" in said


def test_proc_is_seen_whole_only_with_users_of_ones_own(kube):
    unmasked = pod("odd", shell("true", **rights(procMount="Unmasked")))
    said = kube.fails("apply", "-f", "-", stdin=json.dumps(unmasked))
    assert "`hostUsers` must be false to use `Unmasked`" in said


def test_a_pod_that_insists_on_what_cannot_be_says_why(kube):
    odd = shell("true", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    kube.apply(pod("odd", odd, hostUsers=False, volumes=[{"name": "v", "hostPath": {"path": "/proc"}}]))
    state = kube.waiting("odd", "CreateContainerError")
    assert "/proc, or something mounted in it, cannot be id-mapped" in state["message"]


def test_volumes_of_every_kind_have_the_owners_they_would_have_without(kube, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 1000, 1000)
    kube("create", "configmap", "words", "--from-literal=a=b")
    kube("create", "secret", "generic", "key", "--from-literal=k=s")
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kube.apply(thing("PersistentVolumeClaim", "disk", spec=wanted))
    kinds = {
        "empty": {"emptyDir": {}},
        "memory": {"emptyDir": {"medium": "Memory"}},
        "words": {"configMap": {"name": "words"}},
        "key": {"secret": {"secretName": "key", "defaultMode": 0o400}},
        "host": {"hostPath": {"path": str(tmp_path)}},
        "disk": {"persistentVolumeClaim": {"claimName": "disk"}},
    }
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in kinds]
    mounts.append({"name": "empty", "mountPath": "/sub", "subPath": "below"})
    volumes = [{"name": name, **source} for name, source in kinds.items()]
    kube.apply(
        pod(
            "plain",
            shell("sleep 1000", volumeMounts=mounts, **rights(runAsUser=1000, runAsGroup=1000)),
            volumes=volumes,
            securityContext={"fsGroup": 2000},
        ),
        pod("root", shell("sleep 1000", volumeMounts=mounts), volumes=volumes),
    )
    for name, user in (("plain", "1000"), ("root", "0")):
        kube.running(name)
        assert mapping(kube, name) != HOSTS
        script = (
            "cat /key/k && cat /words/a && echo w >/host/f;"
            "for d in empty memory disk; do echo x >/$d/$HOSTNAME && stat -c %u:%g /$d/$HOSTNAME; done;"
            "stat -c %u /host/f"
        )
        shown = kube("exec", name, "--", "sh", "-c", script).out.splitlines()
        group = "2000" if name == "plain" else None
        assert shown[0].startswith("sb"), shown
        assert {line.split(":")[0] for line in shown[1:-1]} == {user}
        if group:
            assert {line.split(":")[1] for line in shown[1:-1]} == {group}
        assert shown[-1] == "1000"
    assert (tmp_path / "f").stat().st_uid == 1000


def test_a_debugging_container_is_among_the_same_users_unless_it_is_to_have_more(kube):
    kube.apply(pod("target", shell("sleep 1000")))
    kube.running("target")
    for profile, same in (("general", True), ("sysadmin", False)):
        name = f"debug-{profile}"
        flags = (f"--profile={profile}", f"--image={IMAGE}", "--target=main", "-c", name)
        kube("debug", "target", *flags, "--", "sleep", "100")
        kube.until("target", lambda p, name=name: status_of(p, name).get("state", {}).get("running"))
        theirs = mapping(kube, "target", "-c", name)
        assert (theirs == mapping(kube, "target", "-c", "main")) is same
        assert "sleep 1000" in kube("exec", "target", "-c", name, "--", "ps").out


def test_what_is_copied_in_and_out_belongs_to_the_containers_user(kube, tmp_path):
    (tmp_path / "file").write_text("content")
    kube.apply(pod("box", shell("sleep 1000")))
    kube.running("box")
    kube("cp", str(tmp_path / "file"), f"{kube.namespace}/box:/tmp/copied")
    assert kube("exec", "box", "--", "stat", "-c", "%u", "/tmp/copied").out == "0\n"
    kube("cp", f"{kube.namespace}/box:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "content"
