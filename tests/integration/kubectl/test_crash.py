"""`kill -9` of the daemon and of shims, with kubectl at work: what was acknowledged stays; the cluster converges."""

import json
import random
import threading
import time

import pytest

from kestrel.testing.instance import kill, wait_until
from kestrel.testing.kubectl import IMAGE, Kubectl, condition, container, pod, shell, status_of, thing

pytestmark = [pytest.mark.root, pytest.mark.clients, pytest.mark.timeout(180)]

CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}


@pytest.fixture
def fragile(own_platform) -> Kubectl:
    """kubectl of a Kestrel of the test's own."""
    own_platform("tag", "box", IMAGE)
    kube = Kubectl.of(own_platform)
    kube.until("default", lambda _: True, resource="serviceaccounts")
    return kube


def restart(kube: Kubectl) -> None:
    """Kill the daemon and start the next."""
    kube.instance.kill_daemon()
    kube.instance("up")


def test_pods_and_their_logs_go_on_through_a_killed_daemon(fragile):
    kube = fragile
    ticking = shell("n=0; while true; do n=$((n+1)); echo $n; sleep 0.05; done")
    shown = {"volumes": [{"name": "v", "configMap": {"name": "settings"}}]}
    reader = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    kube.apply(
        thing("ConfigMap", "settings", data={"color": "blue"}),
        pod("ticker", ticking),
        pod("reader", reader, **shown),
        pod("ender", shell("sleep 1.5; echo over; exit 7"), restartPolicy="Never"),
    )
    before = kube.running("ticker")
    kube.running("ender")
    kube.instance.kill_daemon()
    time.sleep(2)
    kube.instance("up")
    after = kube.running("ticker")
    assert status_of(after)["containerID"] == status_of(before)["containerID"]
    assert status_of(after)["restartCount"] == 0
    numbers = [int(line) for line in kube("logs", "ticker").out.split()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 40
    ended = status_of(kube.phase("ender", "Failed"))["state"]["terminated"]
    assert ended["exitCode"] == 7
    assert kube("logs", "ender").out == "over\n"
    assert kube("exec", "ticker", "--", "hostname").out == "ticker\n"
    kube("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"color":"red"}}')
    wait_until(lambda: kube("exec", "reader", "--", "cat", "/v/color").out == "red", every=0.2)


def test_nothing_acknowledged_is_lost_and_the_cluster_converges(fragile):
    """Appliers and deleters run while the daemon is killed three times."""
    kube = fragile
    there: set[str] = set()
    gone: set[str] = set()
    stop = threading.Event()

    def create(worker: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"p{worker}-{number}"
            number += 1
            try:
                code, _ = kube.api.call("POST", "/api/v1/namespaces/default/pods", pod(name))
            except OSError:
                time.sleep(0.05)
                continue
            if code == 201:
                there.add(name)
            if number % 3 == 0:
                delete(name)
            time.sleep(0.1)

    def delete(name: str) -> None:
        try:
            code, _ = kube.api.call("DELETE", f"/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0")
        except OSError:
            there.discard(name)  # nobody knows
            return
        if code == 200:
            there.discard(name)
            gone.add(name)

    workers = [threading.Thread(target=create, args=(n,)) for n in range(2)]
    for worker in workers:
        worker.start()
    dice = random.Random(4711)
    for _ in range(3):
        time.sleep(dice.uniform(0.4, 1.2))
        restart(kube)
    stop.set()
    for worker in workers:
        worker.join()
    assert len(there) > 5
    for name in there:
        kube.until(name, lambda p: condition(p, "Ready") == "True", timeout=60)
    for name in gone:
        assert kube.get("pods", name) is None
    expected = {p["metadata"]["name"] for p in kube.objects("pods")}
    wait_until(lambda: {_pod_of(c) for c in kube.instance("ps", "-a", "--json").json()} == expected, timeout=30)


def _pod_of(entry) -> str:
    names = entry.get("name") or entry.get("names") or ""
    return str(names).split("_")[2]


def test_a_rollout_of_twenty_pods_survives_a_killed_daemon(fragile):
    kube = fragile
    pods = [pod(f"web-{n}", labels={"app": "web"}) for n in range(20)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": pods})
    with kube.start("apply", "-f", "-") as applying:
        assert applying.stdin is not None
        applying.stdin.write(text.encode())
        applying.stdin.close()
        wait_until(lambda: len(kube.objects("pods")) > 5)
        kube.instance.kill_daemon()
        applying.wait(30)
    kube.instance("up")
    kube("apply", "-f", "-", stdin=text, timeout=60)
    kube("wait", "--for=condition=Ready", "pods", "-l", "app=web", "--timeout=60s", timeout=70)
    assert len(kube.objects("pods")) == 20


def test_a_watch_goes_on_or_is_told_to_begin_anew(fragile):
    kube = fragile
    kube.apply(thing("ConfigMap", "before", data={}))
    listed = kube.api.get("/api/v1/namespaces/default/configmaps")
    assert listed is not None
    version = listed["metadata"]["resourceVersion"]
    restart(kube)
    again = kube.api.get("/api/v1/namespaces/default/configmaps")
    assert again is not None
    assert int(again["metadata"]["resourceVersion"]) >= int(version)
    code, answer = kube.api.call(
        "GET", f"/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=1"
    )
    expired = code == 410 or answer.get("object", {}).get("code") == 410
    assert expired or code == 200
    with kube.background("get", "configmaps", "--watch", "-o", "name") as watching:
        assert watching.stdout is not None
        assert b"configmap/before" in watching.stdout.readline()
        kube.apply(thing("ConfigMap", "between", data={}))
        while b"between" not in watching.stdout.readline():
            pass


def test_a_killed_shim_fails_the_pod_or_restarts_it(fragile):
    kube = fragile
    kube.apply(pod("mortal", restartPolicy="Never"), pod("phoenix"))
    kube.running("phoenix")
    kube.running("mortal")
    for name in ("mortal", "phoenix"):
        [found] = [c for c in kube.instance("ps", "--json").json() if _pod_of(c) == name]
        kill(kube.instance.shim(found["id"]))
    assert kube.phase("mortal", "Failed")
    assert "the shim was killed" in kube.event("mortal", "SandboxKilled")
    kube.until("phoenix", lambda p: status_of(p)["restartCount"] == 1 and condition(p, "Ready") == "True", timeout=30)


def test_data_of_a_claim_outlives_pod_and_daemon(fragile):
    kube = fragile
    volume = {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "disk"}}]}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    writer = shell("echo kept > /v/file; sync; sleep 1000", **mount)
    kube.apply(thing("PersistentVolumeClaim", "disk", spec=CLAIM), pod("writer", writer, **volume))
    kube.running("writer")
    kube("delete", "pod", "writer")
    restart(kube)
    kube.instance("down")
    kube.instance("up")
    kube.apply(pod("reader", container(**mount), **volume))
    kube.running("reader")
    assert kube("exec", "reader", "--", "cat", "/v/file").out == "kept\n"
