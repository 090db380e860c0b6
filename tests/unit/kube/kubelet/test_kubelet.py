"""The kubelet over the real store and API server, with containers in memory."""

import asyncio
import base64
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound
from kestrel.kube.apiserver import ApiServer, TokenSigner
from kestrel.kube.client import Client
from kestrel.kube.kubelet import Kubelet, KubeletSettings
from kestrel.kube.kubelet.node import Identity, Machine
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.store import SqliteStore
from kestrel.testing.clock import HandClock
from kestrel.testing.pod_runtime import MemoryRuntime


class World:
    """A cluster of one node; `client` is somebody else's."""

    def __init__(self, directory: Path, clock=None):
        self.directory = directory
        self.database = Database(directory / "db")
        self.clock = clock
        self.store = SqliteStore(self.database)
        self.api = ApiServer(self.store, TokenSigner.load_or_create(directory / "key"))
        self.client = Client(self.api.transport(), manager="test")
        self.runtime = MemoryRuntime(clock)
        self.kubelet = self.make_kubelet()

    def make_kubelet(self) -> Kubelet:
        paths = Paths(
            logs=self.directory / "pods", state=self.directory / "state", volatile=self.directory / "volatile"
        )
        settings = KubeletSettings(
            node="node", address="192.0.2.1", paths=paths, seccomp_root=self.directory / "seccomp",
            services={"KUBERNETES_SERVICE_HOST": "192.0.2.1"}, memory=2**30,
        )  # fmt: skip
        return Kubelet(
            Client(self.api.transport(), manager="kubelet"), self.runtime, settings=settings,
            identity=Identity(name="node", address="192.0.2.1"), machine=Machine(cpus=2, memory=2**30, disk=2**34),
            root=self.directory, clock=self.clock,
        )  # fmt: skip

    async def prepare(self):
        for name in ("default", "kube-node-lease"):
            await self.client.create(
                "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            )
        await self.make("serviceaccounts", "ServiceAccount", "default")
        await self.kubelet.start()

    async def close(self):
        await self.kubelet.stop()
        await self.store.close()
        self.database.close()

    async def make(self, resource, kind, name, **fields):
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, **fields}
        return await self.client.create(resource, body)

    async def pod(self, name="web", containers=None, metadata=None, **spec):
        spec.setdefault("nodeName", "node")
        containers = containers or [{"name": "app", "image": "busybox", "imagePullPolicy": "IfNotPresent"}]
        for container in containers:
            container.setdefault("image", "busybox")
            container.setdefault("imagePullPolicy", "IfNotPresent")
        body = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", **(metadata or {})},
            "spec": {"containers": containers, **spec},
        }  # fmt: skip
        return await self.client.create("pods", body)

    async def until(self, condition, name="web", seconds=5.0):
        """Wait until the pod as the API has it fulfils the condition; return it."""
        async with asyncio.timeout(seconds):
            pod = await self.client.find("pods", name, "default")
            while not condition(pod):
                await asyncio.sleep(0.005)
                pod = await self.client.find("pods", name, "default")
            return pod

    async def phase(self, wanted, name="web"):
        return await self.until(lambda pod: pod and pod["status"].get("phase") == wanted, name)

    async def events(self):
        await self.kubelet.settled()
        return [(e["reason"], e["message"]) for e in (await self.client.list("events", "default")).items]

    async def said(self, reason):
        return [message for found, message in await self.events() if found == reason]

    async def heard(self, reason, seconds=3.0):
        """Wait until an event of that reason is there."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.said(reason)
                if found:
                    return found
                await asyncio.sleep(0.01)


async def eventually(condition, seconds=3.0):
    """Wait until a condition about this process holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything at all
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(directory, clock=None):
    world = World(directory, clock)
    await world.prepare()
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture
async def world(tmp_path):
    async with running(tmp_path) as world:
        yield world


@pytest.fixture
async def slow_world(tmp_path):
    """A world whose clock is moved by hand."""
    async with running(tmp_path, HandClock()) as world:
        yield world


def status(pod, name="app"):
    found = [*pod["status"].get("containerStatuses", []), *pod["status"].get("initContainerStatuses", [])]
    return next(s for s in found if s["name"] == name)


def conditions(pod):
    return {c["type"]: c["status"] for c in pod["status"]["conditions"]}


async def test_a_pod_runs_and_says_so(world):
    await world.pod()
    pod = await world.phase("Running")
    assert pod["status"]["podIP"].startswith("127.0.0.")
    assert pod["status"]["hostIP"] == "192.0.2.1"
    assert pod["status"]["qosClass"] == "BestEffort"
    assert status(pod)["ready"]
    assert status(pod)["started"]
    assert status(pod)["imageID"] == "docker.io/library/busybox@sha256:" + "d" * 64
    assert status(pod)["containerID"].startswith("kestrel://")
    assert set(conditions(pod).values()) == {"True"}
    assert set(conditions(pod)) == {
        "PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready",
    }  # fmt: skip
    assert [reason for reason, _ in await world.events()] == ["Pulled", "Created", "Started"]


async def test_the_node_is_made_known_with_a_lease(world):
    node = await world.client.get("nodes", "node")
    assert node["status"]["capacity"]["cpu"] == "2"
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node"
    lease = await world.client.get("leases.coordination.k8s.io", "node", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == "node"


async def test_a_pod_that_ends_well_has_succeeded_and_its_sandbox_goes(world):
    await world.pod(restartPolicy="Never")
    await world.phase("Running")
    world.runtime.exit(world.runtime.named("app").id, 0)
    pod = await world.until(lambda pod: pod["status"]["phase"] == "Succeeded")
    assert status(pod)["state"]["terminated"]["reason"] == "Completed"
    await eventually(lambda: not (any(sandbox.ready for sandbox in world.runtime.sandboxes.values())))
    pod = await world.client.get("pods", "web", "default")
    assert pod["status"]["podIP"]
    assert conditions(pod)["Ready"] == "False"


async def test_a_failing_pod_has_failed_with_its_last_words(world):
    await world.pod(restartPolicy="Never")
    pod = await world.phase("Running")
    container = world.runtime.named("app")
    words = next(m.source for m in world.runtime.configs[container.id].mounts if m.target == "/dev/termination-log")
    Path(words).write_text("no more disk")
    world.runtime.exit(container.id, 3)
    pod = await world.phase("Failed")
    assert status(pod)["state"]["terminated"]["exitCode"] == 3
    assert status(pod)["state"]["terminated"]["message"] == "no more disk"


async def test_the_log_stands_in_for_last_words_when_asked(world):
    await world.pod(
        restartPolicy="Never", containers=[{"name": "app", "terminationMessagePolicy": "FallbackToLogsOnError"}]
    )
    await world.phase("Running")
    world.runtime.exit(world.runtime.named("app").id, 1)
    pod = await world.phase("Failed")
    assert status(pod)["state"]["terminated"]["message"] == "hello\n"


async def test_a_crashing_container_is_restarted_with_growing_delays(slow_world):
    world = slow_world
    await world.pod()
    await world.phase("Running")
    for attempt, delay in enumerate([0, 10, 20, 40, 80, 160, 300, 300]):
        world.runtime.exit(world.runtime.named("app").id, 1)
        if delay:
            waiting = await world.until(lambda pod: "waiting" in status(pod)["state"])
            assert status(waiting)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            assert status(waiting)["lastState"]["terminated"]["exitCode"] == 1
            assert not status(waiting)["ready"]
            world.clock.move(delay - 0.5)
            world.kubelet.poke()
            await asyncio.sleep(0.02)
            assert world.runtime.named("app").attempt == attempt
            world.clock.move(1)
            world.kubelet.poke()
        wanted = attempt + 1
        again = await world.until(lambda pod, n=wanted: status(pod)["restartCount"] == n and status(pod)["ready"])
        assert "running" in status(again)["state"]
    assert len(world.runtime.pod(again["metadata"]["uid"]).containers) <= 3
    said = await world.said("BackOff")
    assert said
    assert said[0].startswith("Back-off restarting failed container app in pod web_default(")


async def test_a_long_run_resets_the_back_off(slow_world):
    world = slow_world
    await world.pod()
    await world.phase("Running")
    world.runtime.exit(world.runtime.named("app").id, 1)
    await world.until(lambda pod: status(pod)["restartCount"] == 1)
    world.clock.move(601)
    world.runtime.exit(world.runtime.named("app").id, 1)
    await world.until(lambda pod: status(pod)["restartCount"] == 2)


async def test_a_missing_image_is_said_and_tried_again(slow_world):
    world = slow_world
    await world.pod(containers=[{"name": "app", "image": "example.test/app:1"}])
    pod = await world.until(lambda pod: "ErrImagePull" in str(pod["status"]))
    assert "connection refused" in status(pod)["state"]["waiting"]["message"]
    world.clock.move(3)
    world.kubelet.poke()
    pod = await world.until(lambda pod: "ImagePullBackOff" in str(pod["status"]))
    assert status(pod)["state"]["waiting"]["message"].startswith(
        'Back-off pulling image "example.test/app:1": ErrImagePull:'
    )
    world.runtime.pullable.add("example.test/app:1")
    world.clock.move(8)
    world.kubelet.poke()
    await world.phase("Running")
    events = await world.events()
    reasons = [reason for reason, _ in events]
    assert reasons.count("Pulling") + sum("x2" in m for _, m in events) >= 1
    assert any(
        m.startswith('Successfully pulled image "example.test/app:1" in ') and "1234 bytes" in m for _, m in events
    )
    assert any(m.startswith('Failed to pull image "example.test/app:1": cannot reach registry') for _, m in events)


async def test_an_image_that_may_not_be_pulled_is_said(world):
    await world.pod(containers=[{"name": "app", "image": "other", "imagePullPolicy": "Never"}])
    pod = await world.until(lambda pod: "ErrImageNeverPull" in str(pod["status"]))
    assert status(pod)["state"]["waiting"]["message"] == (
        'Container image "other" is not present with pull policy of Never'
    )


async def test_an_invalid_image_name_is_said(world):
    await world.pod(containers=[{"name": "app", "image": "UPPER CASE"}])
    await world.until(lambda pod: "InvalidImageName" in str(pod["status"]))


async def test_always_pulls_even_when_present(world):
    world.runtime.pullable.add("busybox")
    await world.pod(containers=[{"name": "app", "imagePullPolicy": "Always"}])
    await world.phase("Running")
    assert [call for call in world.runtime.calls if call[0] == "pull"] == [("pull", "busybox", None)]


async def test_pull_secrets_reach_the_registry_client(world):
    world.runtime.pullable.add("example.test/app:1")
    config = b'{"auths": {"example.test": {"auth": "' + base64.b64encode(b"me:secret") + b'"}}}'
    data = {".dockerconfigjson": base64.b64encode(config).decode()}
    await world.make("secrets", "Secret", "pull", data=data, type="kubernetes.io/dockerconfigjson")
    await world.pod(containers=[{"name": "app", "image": "example.test/app:1"}], imagePullSecrets=[{"name": "pull"}])
    await world.phase("Running")
    ((_, _, credentials),) = [call for call in world.runtime.calls if call[0] == "pull"]
    found = await credentials.lookup("example.test")
    assert (found.username, found.password) == ("me", "secret")


async def test_a_command_that_cannot_run_is_explained(world):
    world.runtime.start_errors["app"] = NotFound('exec: "/nope": executable file not found in $PATH')
    await world.pod(restartPolicy="Never")
    pod = await world.phase("Failed")
    ended = status(pod)["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert "executable file not found" in ended["message"]
    assert await world.said("Failed") == ['Error: exec: "/nope": executable file not found in $PATH']


async def test_a_missing_key_is_named_and_the_pod_starts_when_it_comes(world):
    reference = {"secretKeyRef": {"name": "db", "key": "password"}}
    await world.make("secrets", "Secret", "db", stringData={"passwrod": "x"})
    await world.pod(containers=[{"name": "app", "env": [{"name": "PASSWORD", "valueFrom": reference}]}])
    pod = await world.until(lambda pod: "CreateContainerConfigError" in str(pod["status"]))
    message = status(pod)["state"]["waiting"]["message"]
    assert message == "couldn't find key password in Secret default/db (did you mean passwrod?)"
    await world.client.patch("secrets", "db", {"stringData": {"password": "x"}}, "default")
    await world.phase("Running")
    environment = dict(world.runtime.configs[world.runtime.named("app").id].env)
    assert environment["PASSWORD"] == "x"
    assert environment["KUBERNETES_SERVICE_HOST"] == "192.0.2.1"


async def test_a_missing_config_map_keeps_the_pod_waiting_until_it_comes(world):
    volume = {"name": "config", "configMap": {"name": "settings"}}
    mounts = [{"name": "config", "mountPath": "/etc/app"}]
    await world.pod(volumes=[volume], containers=[{"name": "app", "volumeMounts": mounts}])
    await world.until(lambda pod: pod["status"].get("podIP"))
    pod = await world.until(lambda pod: status(pod)["state"]["waiting"]["reason"] == "ContainerCreating")
    assert pod["status"]["phase"] == "Pending"
    said = await world.said("FailedMount")
    assert said
    assert said[0].startswith('MountVolume.SetUp failed for volume "config" : configmap "settings" not found')
    await world.make("configmaps", "ConfigMap", "settings", data={"a.conf": "one"})
    await world.phase("Running")
    mount = next(m for m in world.runtime.configs[world.runtime.named("app").id].mounts if m.target == "/etc/app")
    assert mount.read_only
    assert Path(mount.source, "a.conf").read_text() == "one"
    await world.client.patch("configmaps", "settings", {"data": {"a.conf": "two", "b.conf": "three"}}, "default")
    await eventually(lambda: Path(mount.source, "b.conf").exists())
    assert Path(mount.source, "a.conf").read_text() == "two"


async def test_a_deleted_pod_is_stopped_cleaned_up_and_let_go(world):
    await world.pod(terminationGracePeriodSeconds=7)
    pod = await world.phase("Running")
    uid = pod["metadata"]["uid"]
    logs = world.directory / "pods" / f"default_web_{uid}"
    assert (logs / "app" / "0.log").exists()
    await world.client.delete("pods", "web", "default")
    await world.until(lambda pod: pod is None)
    assert ("stop", "app", 7) in world.runtime.calls or ("stop", "app", 8) in world.runtime.calls
    assert not world.runtime.sandboxes
    assert not world.runtime.containers
    assert not logs.exists()
    assert not (world.directory / "state" / uid).exists()
    assert ("Killing", "Stopping container app") in await world.events()


async def test_a_second_deletion_with_less_grace_hastens_the_first(world):
    world.runtime.stubborn.add("app")
    await world.pod(terminationGracePeriodSeconds=600)
    await world.phase("Running")
    await world.client.delete("pods", "web", "default")
    await asyncio.sleep(0.05)
    await world.client.delete("pods", "web", "default", grace_seconds=1)
    await world.until(lambda pod: pod is None)
    assert [call[2] > 500 for call in world.runtime.calls if call[0] == "stop"] == [True, False]


async def test_a_forced_deletion_leaves_nothing_behind(world):
    world.runtime.stubborn.add("app")
    await world.pod()
    await world.phase("Running")
    await world.client.delete("pods", "web", "default", grace_seconds=0)
    await eventually(lambda: not (world.runtime.sandboxes))


async def test_a_pod_of_the_same_name_can_follow_at_once(world):
    first = await world.pod()
    await world.phase("Running")
    await world.client.delete("pods", "web", "default", grace_seconds=0)
    second = await world.pod()
    pod = await world.phase("Running")
    assert pod["metadata"]["uid"] == second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_pre_stop_runs_within_the_grace_period(world):
    handler = {"preStop": {"exec": {"command": ["bye"]}}}
    await world.pod(containers=[{"name": "app", "lifecycle": handler}])
    await world.phase("Running")
    await world.client.delete("pods", "web", "default")
    await world.until(lambda pod: pod is None)
    calls = [call[:2] for call in world.runtime.calls if call[0] in ("exec", "stop")]
    assert calls == [("exec", "app"), ("stop", "app")]


async def test_a_failed_post_start_hook_ends_the_container(world):
    world.runtime.execs[("hello",)] = (1, b"", b"not now")
    handler = {"postStart": {"exec": {"command": ["hello"]}}}
    await world.pod(restartPolicy="Never", containers=[{"name": "app", "lifecycle": handler}])
    await world.phase("Failed")
    assert await world.said("FailedPostStartHook") == ["PostStartHook failed: not now"]


async def test_init_containers_come_first_and_show_in_the_status(world):
    init = [{"name": "one", "image": "busybox", "imagePullPolicy": "IfNotPresent"}]
    await world.pod(initContainers=init)
    pod = await world.until(
        lambda pod: pod["status"].get("initContainerStatuses") and "running" in status(pod, "one")["state"]
    )
    assert pod["status"]["phase"] == "Pending"
    assert conditions(pod)["Initialized"] == "False"
    assert status(pod)["state"]["waiting"]["reason"] == "PodInitializing"
    world.runtime.exit(world.runtime.named("one").id, 0)
    pod = await world.phase("Running")
    assert status(pod, "one")["state"]["terminated"]["exitCode"] == 0
    assert status(pod, "one")["ready"]
    assert conditions(pod)["Initialized"] == "True"


async def test_readiness_decides_ready_but_not_running(world):
    world.runtime.execs[("check",)] = (1, b"warming up", b"")
    probe = {"exec": {"command": ["check"]}, "periodSeconds": 1}
    await world.pod(containers=[{"name": "app", "readinessProbe": probe}])
    pod = await world.phase("Running")
    assert not status(pod)["ready"]
    assert conditions(pod)["Ready"] == "False"
    assert status(pod)["started"]
    assert "Readiness probe failed: warming up" in await world.heard("Unhealthy")
    world.runtime.execs[("check",)] = (0, b"", b"")
    pod = await world.until(lambda pod: status(pod)["ready"])
    assert conditions(pod)["Ready"] == "True"


async def test_a_failed_liveness_probe_restarts_the_container(world):
    world.runtime.execs[("alive",)] = (2, b"", b"deadlock")
    probe = {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    await world.pod(containers=[{"name": "app", "livenessProbe": probe}])
    await world.until(lambda pod: pod["status"].get("containerStatuses") and status(pod)["restartCount"] == 1)
    assert "Liveness probe failed: deadlock" in await world.said("Unhealthy")
    assert "Container app failed liveness probe, will be restarted" in await world.said("Killing")


async def test_a_killed_shim_fails_a_pod_that_is_never_restarted(world):
    await world.pod(restartPolicy="Never")
    await world.phase("Running")
    world.runtime.kill_shim(next(iter(world.runtime.sandboxes)))
    pod = await world.phase("Failed")
    assert status(pod)["state"]["terminated"]["reason"] == "ShimKilled"
    assert await world.said("SandboxKilled") == ["Container app ended with its sandbox: the shim was killed"]


async def test_a_killed_shim_gives_a_new_sandbox_to_a_pod_that_is_restarted(world):
    await world.pod()
    await world.phase("Running")
    world.runtime.kill_shim("sandbox1")
    pod = await world.until(lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"])
    assert status(pod)["lastState"]["terminated"]["reason"] == "ShimKilled"
    assert world.runtime.named("app").sandbox != "sandbox1"


async def test_an_out_of_memory_end_is_explained_with_the_limit(world):
    limits = {"limits": {"memory": "64Mi"}}
    await world.pod(restartPolicy="Never", containers=[{"name": "app", "resources": limits}])
    await world.phase("Running")
    container = world.runtime.named("app")
    resources = world.runtime.configs[container.id].resources
    assert (resources.memory, resources.memory_swap) == (64 * 2**20, 64 * 2**20)
    world.runtime.exit(container.id, 137, reason="OOMKilled")
    await world.phase("Failed")
    assert await world.said("OOMKilling") == [
        "Container app was killed: it used more memory than its limit of 67108864 bytes"
    ]


async def test_a_sandbox_that_cannot_be_made_is_said_and_tried_again(slow_world):
    world = slow_world
    world.runtime.sandbox_errors.append(FailedPrecondition("port 80 is taken", hint="by pod other"))
    await world.pod()
    await world.heard("FailedCreatePodSandBox")
    assert await world.said("FailedCreatePodSandBox") == [
        "Failed to create pod sandbox: port 80 is taken (by pod other)"
    ]
    world.clock.move(2)
    world.kubelet.poke()
    await world.phase("Running")


async def test_the_active_deadline_fails_the_pod(slow_world):
    world = slow_world
    await world.pod(activeDeadlineSeconds=30)
    await world.phase("Running")
    world.clock.move(31)
    world.kubelet.poke()
    pod = await world.phase("Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_a_new_kubelet_adopts_what_runs_and_learns_what_ended(world):
    await world.pod("one")
    await world.pod("two", restartPolicy="Never")
    await world.phase("Running", "one")
    await world.phase("Running", "two")
    started = [call for call in world.runtime.calls if call[0] == "start"]
    await world.kubelet.stop()
    two = next(c for i, c in world.runtime.containers.items() if "_two_" in world.runtime.configs[i].name)
    world.runtime.exit(two.id, 4)
    world.kubelet = world.make_kubelet()
    await world.kubelet.start()
    pod = await world.phase("Failed", "two")
    assert status(pod)["state"]["terminated"]["exitCode"] == 4
    pod = await world.phase("Running", "one")
    assert status(pod)["restartCount"] == 0
    assert [call for call in world.runtime.calls if call[0] == "start"] == started


async def test_a_new_kubelet_removes_pods_the_api_does_not_know(world):
    await world.pod()
    pod = await world.phase("Running")
    await world.kubelet.stop()
    await world.client.delete("pods", "web", "default", grace_seconds=0)
    world.kubelet = world.make_kubelet()
    await world.kubelet.start()
    assert not world.runtime.sandboxes
    assert not world.runtime.containers
    assert not (world.directory / "state" / pod["metadata"]["uid"]).exists()
    assert not list((world.directory / "pods").iterdir())


def query(**fields):
    defaults = {
        "container": "app", "follow": False, "previous": False, "timestamps": False, "tail_lines": None,
        "since_seconds": None, "since_time": None, "limit_bytes": None, "stream": "All",
    }  # fmt: skip
    return SimpleNamespace(**defaults | fields)


async def test_logs_are_served_also_of_the_start_before(world):
    await world.pod()
    pod = await world.phase("Running")
    server = world.kubelet.server
    chunks = [chunk async for chunk in await server.logs(pod, query())]
    assert chunks == [b"hello\n"]
    with pytest.raises(InvalidArgument, match='previous terminated container "app" in pod "web" not found'):
        await server.logs(pod, query(previous=True))
    world.runtime.exit(world.runtime.named("app").id, 1)
    pod = await world.until(lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"])
    first = world.directory / "pods" / f"default_web_{pod['metadata']['uid']}" / "app" / "0.log"
    first.write_bytes(b"2026-01-02T03:04:05Z stdout F the first\n")
    assert [chunk async for chunk in await server.logs(pod, query(previous=True))] == [b"the first\n"]


async def test_following_a_log_ends_with_the_container(world):
    await world.pod(restartPolicy="Never")
    pod = await world.phase("Running")
    stream = await world.kubelet.server.logs(pod, query(follow=True, tail_lines=0))

    async def collect():
        return [chunk async for chunk in stream]

    task = asyncio.create_task(collect())
    await asyncio.sleep(0.05)
    container = world.runtime.named("app")
    with open(container.log_path, "ab") as log:
        log.write(b"2026-01-02T03:04:06Z stdout F more\n")
    world.runtime.exit(container.id, 0)
    assert await asyncio.wait_for(task, 0.5) == [b"more\n"]


async def test_logs_of_a_waiting_container_say_what_it_waits_for(world):
    await world.pod(containers=[{"name": "app", "image": "nowhere.test/x:1"}])
    pod = await world.until(lambda pod: "ErrImagePull" in str(pod["status"]))
    with pytest.raises(InvalidArgument, match="is waiting to start: trying and failing to pull image"):
        await world.kubelet.server.logs(pod, query())


async def test_exec_goes_to_the_running_container(world):
    await world.pod()
    pod = await world.phase("Running")
    asked = SimpleNamespace(container="app", command=("ls",), stdin=False, tty=True)
    session = await world.kubelet.server.exec(pod, asked)
    assert session == ("exec", world.runtime.named("app").id, ("ls",), True, False)
    world.runtime.exit(world.runtime.named("app").id, 0)
    with pytest.raises(NotFound, match='container not found \\("app"\\)'):
        await world.kubelet.server.exec(pod, asked)


async def test_an_idle_pod_costs_no_writes(world):
    await world.pod()
    await world.phase("Running")
    await world.kubelet.settled()
    before = world.store.version
    world.kubelet.poke()
    await asyncio.sleep(0.1)
    assert world.store.version == before


async def test_a_status_is_written_few_times_on_the_way_to_running(world):
    made = await world.pod()
    await world.phase("Running")
    await world.kubelet.settled()
    watch = world.client.watch("pods", "default", resource_version=made["metadata"]["resourceVersion"])
    changes = []
    async with asyncio.timeout(1):
        async for event in watch:
            changes.append(event.object["status"].get("phase"))
            if changes[-1] == "Running":
                break
    await watch.aclose()
    assert len(changes) <= 3
