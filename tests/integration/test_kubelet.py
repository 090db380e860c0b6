"""Pods for real: store, API server, scheduler, controllers, kubelet and engine of one platform, no part replaced."""

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from kestrel.app.node import open_node
from kestrel.app.settings import Settings
from kestrel.engine.shims import Zygote
from kestrel.kube.apiserver import ApiServer, TokenSigner
from kestrel.kube.client import Client
from kestrel.kube.controllers import Accounts, Controllers, Garbage, Namespaces, Storage
from kestrel.kube.kubelet import Kubelet, KubeletSettings
from kestrel.kube.kubelet.node import Identity, look_at_machine
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.scheduler import Scheduler
from kestrel.kube.store import SqliteStore
from kestrel.linux import cgroups
from kestrel.pods import PodService
from kestrel.testing.images import tiny_image

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

HERE = "127.0.0.1"


class Daemon:
    """One life of a daemon over a directory that outlives it."""

    def __init__(self, directory: Path, name: str):
        self.settings = Settings(root=directory / "root", run=directory / "run", name=name, node="node")
        self.stack = AsyncExitStack()

    async def start(self):
        self.settings.root.mkdir(parents=True, exist_ok=True)
        self.zygote = await Zygote.start(self.settings.run)
        self.stack.push_async_callback(self.zygote.close)
        self.node = await open_node(self.settings, self.zygote, self.stack)
        store = SqliteStore(self.node.database)
        self.stack.push_async_callback(store.close)
        self.api = ApiServer(store, TokenSigner.load_or_create(self.settings.root / "key"))
        self.client = Client(self.api.transport(), manager="test")
        own = Client(self.api.transport(), manager="platform")
        controllers = Controllers(
            [Namespaces(own), Accounts(own, "PEM"), Storage(own, self.node.volumes), Garbage(own)]
        )
        pods = PodService(self.node.engine, self.node.images)
        pods.load()
        root, run = self.settings.root, self.settings.run
        paths = Paths(logs=root / "pods", state=root / "kubelet", volatile=run / "kubelet")
        machine = look_at_machine(root)
        settings = KubeletSettings(
            node="node", address=HERE, paths=paths, seccomp_root=root / "seccomp", memory=machine.memory
        )
        self.kubelet = Kubelet(
            own, pods, settings=settings, identity=Identity(name="node", address=HERE), machine=machine, root=root
        )
        self.scheduler = Scheduler(own)
        for part in (controllers, self.kubelet, self.scheduler):
            await part.start()
            self.stack.push_async_callback(part.stop)
        async with asyncio.timeout(5):
            # Made by a controller a moment later.
            while await self.client.find("serviceaccounts", "default", "default") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def image(self, name: str = "busybox:test", **more):
        made = tiny_image(self.node.content, **more)
        await self.node.images.import_image(made.manifest_bytes, made.config_bytes, names=[name])

    async def die(self):
        """Go without a word to the containers, as after kill -9."""
        await self.stack.aclose()

    async def end(self):
        """Take everything down."""
        await self.kubelet.stop()
        await self.kubelet.release_mounts()
        await self.node.engine.end_all()
        await self.node.network.down()
        await self.stack.aclose()
        cgroups.remove(self.settings.name)


class World:
    def __init__(self, directory: Path):
        self.directory = directory
        self.name = f"ktest{os.urandom(1).hex()}"
        self.daemon = Daemon(directory, self.name)

    @property
    def client(self) -> Client:
        return self.daemon.client

    async def restart(self):
        await self.daemon.die()
        self.daemon = Daemon(self.directory, self.name)
        await self.daemon.start()

    async def pod(self, name="web", command="sleep 1000", containers=None, metadata=None, **spec):
        containers = containers or [{"name": "app"}]
        for container in containers + spec.get("initContainers", []):
            container.setdefault("image", "busybox:test")
            container.setdefault("imagePullPolicy", "IfNotPresent")
            container.setdefault("command", ["sh", "-c", container.pop("run", command)])
        spec.setdefault("terminationGracePeriodSeconds", 1)
        body = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", **(metadata or {})},
            "spec": {"containers": containers, **spec},
        }  # fmt: skip
        return await self.client.create("pods", body)

    async def until(self, condition, name="web", seconds=15.0):
        pod = None
        try:
            async with asyncio.timeout(seconds):
                while not condition(pod := await self.client.find("pods", name, "default")):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                return pod
        except TimeoutError:
            events = [e["message"] for e in (await self.client.list("events", "default")).items]
            raise AssertionError(f"{pod and pod['status']} {events}") from None

    async def phase(self, wanted, name="web"):
        return await self.until(lambda pod: pod and pod["status"].get("phase") == wanted, name)

    async def output(self, name="web", container="app", **more):
        pod = await self.client.get("pods", name, "default")
        asked = {"follow": False, "previous": False, "timestamps": False, "tail_lines": None, "since_seconds": None,
                 "since_time": None, "limit_bytes": None, "stream": "All"}  # fmt: skip
        query = SimpleNamespace(container=container, **asked | more)
        chunks = await self.daemon.kubelet.server.logs(pod, query)
        return b"".join([chunk async for chunk in chunks]).decode()

    async def printed(self, command, **more):
        """Run a command in a pod of its own and return what it wrote."""
        name = more.pop("name", f"p{os.urandom(3).hex()}")
        await self.pod(name, command, restartPolicy="Never", **more)
        await self.until(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), name)
        return await self.output(name)


@pytest.fixture
async def world():
    directory = Path(tempfile.mkdtemp(prefix="ktest-kubelet-"))
    world = World(directory)
    try:
        await world.daemon.start()
        await world.daemon.image()
        yield world
    finally:
        try:
            await world.daemon.end()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def status(pod, name="app"):
    found = [*pod["status"].get("containerStatuses", []), *pod["status"].get("initContainerStatuses", [])]
    return next((s for s in found if s["name"] == name), {"state": {}, "ready": False, "restartCount": 0})


async def eventually(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is anything at all
            await asyncio.sleep(0.01)


async def test_a_pod_runs_prints_and_is_deleted(world):
    await world.pod(command="echo hello; sleep 1000")
    pod = await world.phase("Running")
    assert pod["status"]["podIP"]

    async def said_hello():
        return await world.output() == "hello\n"

    await eventually(said_hello)
    await world.client.delete("pods", "web", "default")
    await world.until(lambda pod: pod is None)
    engine = world.daemon.node.engine
    assert (list(engine.sandboxes()), list(engine.containers())) == ([], [])
    assert not list((world.daemon.settings.root / "pods").iterdir())
    assert not list((world.daemon.settings.root / "kubelet").iterdir())


async def test_environment_comes_from_fields_config_maps_and_secrets(world):
    maps = {"metadata": {"name": "m", "namespace": "default"}, "data": {"COLOUR": "red", "SIZE": "xl"}}
    await world.client.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", **maps})
    secret = {"metadata": {"name": "s", "namespace": "default"}, "stringData": {"password": "geheim"}}
    await world.client.create("secrets", {"apiVersion": "v1", "kind": "Secret", **secret})
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
        {"name": "ALL", "value": "$(NAME)-$(PASSWORD)-$(NONE)-$$(NAME)"},
    ]
    container = {
        "name": "app", "env": env, "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "M_"}],
        "run": "echo $NAME $LIMIT $ALL $M_COLOUR $M_SIZE; echo $IP",
        "resources": {"limits": {"memory": "64Mi"}},
    }  # fmt: skip
    await world.pod(containers=[container], restartPolicy="Never")
    pod = await world.phase("Succeeded")
    first, second = (await world.output()).splitlines()
    assert first == "web 64 web-geheim-$(NONE)-$(NAME) red xl"
    assert second == pod["status"]["podIP"]


async def test_volumes_of_every_kind_are_mounted(world):
    data = {"metadata": {"name": "m", "namespace": "default"}, "data": {"a.conf": "A", "b.conf": "B"}}
    await world.client.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", **data})
    host = world.directory / "host"
    host.mkdir()
    (host / "there").write_text("from the host")
    volumes = [
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
        {"name": "config", "configMap": {"name": "m", "items": [{"key": "b.conf", "path": "dir/b", "mode": 0o400}]}},
        {"name": "one", "configMap": {"name": "m"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    mounts = [
        {"name": "empty", "mountPath": "/empty"}, {"name": "memory", "mountPath": "/memory"},
        {"name": "host", "mountPath": "/host", "readOnly": True}, {"name": "config", "mountPath": "/config"},
        {"name": "one", "mountPath": "/etc/one.conf", "subPath": "a.conf"},
        {"name": "down", "mountPath": "/down"}, {"name": "token", "mountPath": "/token"},
        {"name": "empty", "mountPath": "/sub", "subPath": "deep/er"},
    ]  # fmt: skip
    script = """
        echo x > /empty/file && echo y > /sub/file && cat /empty/deep/er/file
        cat /host/there; echo; touch /host/no 2>&1 | grep -o Read-only
        ls -lL /config/dir/b | cut -c1-10; cat /config/dir/b /etc/one.conf; echo
        cat /down/labels; echo; cut -c1-2 /token/token
        dd if=/dev/zero of=/memory/big bs=1k count=2000 2>&1 | grep -o 'No space'
    """
    await world.pod(
        containers=[{"name": "app", "run": script, "volumeMounts": mounts}], volumes=volumes, restartPolicy="Never",
        metadata={"labels": {"app": "web"}},
    )  # fmt: skip
    await world.until(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"))
    lines = (await world.output()).split("\n")
    assert lines == [
        "y", "from the host", "Read-only", "-r--------", "BA", 'app="web"', "ey", "No space", "",
    ]  # fmt: skip
    await world.client.delete("pods", "web", "default")

    async def unmounted():
        return str(world.directory) not in Path("/proc/self/mountinfo").read_text()

    await eventually(unmounted)


async def test_a_sub_path_cannot_lead_out_of_its_volume(world):
    secret = world.directory / "secret"
    secret.write_text("not yours")
    init = {"name": "evil", "run": f"ln -s {secret} /v/link", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    mounts = [{"name": "v", "mountPath": "/stolen", "subPath": "link"}]
    await world.pod(
        initContainers=[init], containers=[{"name": "app", "run": "cat /stolen", "volumeMounts": mounts}],
        volumes=[{"name": "v", "emptyDir": {}}], restartPolicy="Never",
    )  # fmt: skip
    pod = await world.until(
        lambda pod: "CreateContainerConfigError" in str(pod["status"]) or "terminated" in status(pod)["state"]
    )
    if "terminated" in status(pod)["state"]:
        assert "not yours" not in await world.output()


async def test_a_claim_keeps_what_was_written_for_the_next_pod(world):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "data", "namespace": "default"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = [{"name": "v", "mountPath": "/data"}]
    writer = {"name": "app", "run": "echo kept > /data/file; echo lost > /file", "volumeMounts": mounts}
    reader = {"name": "app", "run": "cat /data/file; ls /file", "volumeMounts": mounts}
    await world.pod("one", containers=[writer], volumes=volumes, restartPolicy="Never")
    await world.client.create("persistentvolumeclaims", claim)  # the pod waits for its claim
    await world.phase("Succeeded", "one")
    await world.pod("two", containers=[reader], volumes=volumes, restartPolicy="Never")
    await world.phase("Failed", "two")
    assert (await world.output("two")).splitlines()[0] == "kept"


async def test_security_contexts_are_kept(world):
    context = {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [4567]}
    own = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    script = """
        id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status
        touch /x 2>&1 | grep -o Read-only; touch /v/f && stat -c %g /v/f
    """
    container = {
        "name": "app",
        "run": script,
        "securityContext": own,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    await world.pod(
        containers=[container], securityContext=context, volumes=[{"name": "v", "emptyDir": {}}], restartPolicy="Never"
    )
    await world.until(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"))
    lines = (await world.output()).splitlines()
    assert lines[0].startswith("uid=1234 gid=2345 groups=")
    assert {"3456", "4567"} <= set(lines[0].partition("groups=")[2].split(","))
    assert lines[1].split() == ["CapEff:", "0000000000000000"]
    assert lines[2].split() == ["NoNewPrivs:", "1"]
    assert lines[3].split() == ["Seccomp:", "2"]
    assert lines[4:] == ["Read-only", "3456"]


async def test_containers_of_a_pod_share_network_but_not_processes(world):
    server = {"name": "server", "run": "echo content > index.html; httpd -f -p 8080"}
    wait = "until wget -qO- http://127.0.0.1:8080/ 2>/dev/null; do sleep 0.1; done"
    client = {"name": "app", "run": f"{wait}; ps | grep -v grep | grep -c httpd; hostname"}
    await world.pod(containers=[server, client], restartPolicy="Never", hostname="own")
    await world.until(lambda pod: "terminated" in status(pod, "app")["state"])
    assert (await world.output()).splitlines() == ["content", "0", "own"]


async def test_shared_processes_when_asked_for(world):
    first = {"name": "first", "run": "exec sleep 1234"}
    second = {"name": "app", "run": "sleep 0.3; ps | grep 'sleep 1234' | grep -vc grep"}
    await world.pod(containers=[first, second], shareProcessNamespace=True, restartPolicy="Never")
    await world.until(lambda pod: "terminated" in status(pod, "app")["state"])
    assert await world.output() == "1\n"


async def test_host_aliases_and_dns_are_written(world):
    output = await world.printed(
        "cat /etc/hosts /etc/resolv.conf",
        hostAliases=[{"ip": "192.0.2.9", "hostnames": ["a.test", "b.test"]}],
        dnsPolicy="None",
        dnsConfig={
            "nameservers": ["192.0.2.53"],
            "searches": ["example.test"],
            "options": [{"name": "ndots", "value": "2"}],
        },
    )
    assert "192.0.2.9\ta.test b.test" in output
    assert "nameserver 192.0.2.53" in output
    assert "search example.test" in output
    assert "options ndots:2" in output


async def test_pods_find_each_other_by_name(world):
    await world.pod("server", "echo content > index.html; httpd -f -p 8080")
    await world.phase("Running", "server")
    script = "until wget -qO- http://server:8080/ 2>/dev/null; do sleep 0.1; done"
    assert await world.printed(script) == "content\n"


async def test_init_containers_and_sidecars_come_in_order(world):
    mounts = [{"name": "v", "mountPath": "/v"}]
    inits = [
        {"name": "one", "run": "sleep 0.2; echo one >> /v/order", "volumeMounts": mounts},
        {
            "name": "side", "restartPolicy": "Always", "volumeMounts": mounts,
            "run": "echo side >> /v/order; trap 'exit 0' TERM; while :; do sleep 0.05; done",
            "startupProbe": {"exec": {"command": ["test", "-e", "/v/order"]}, "periodSeconds": 1},
        },
        {"name": "two", "run": "echo two >> /v/order", "volumeMounts": mounts},
    ]  # fmt: skip
    app = {"name": "app", "run": "cat /v/order", "volumeMounts": mounts}
    await world.pod(
        initContainers=inits, containers=[app], volumes=[{"name": "v", "emptyDir": {}}], restartPolicy="Never"
    )
    pod = await world.phase("Succeeded")
    assert await world.output() == "one\nside\ntwo\n"
    assert status(pod, "side")["state"]["terminated"]["exitCode"] == 0


async def test_a_crashing_container_is_restarted_and_its_last_log_kept(world):
    mounts = [{"name": "v", "mountPath": "/v"}]
    script = "echo x >> /v/n; echo run $(wc -l < /v/n); test $(wc -l < /v/n) -gt 1 && sleep 1000; exit 3"
    await world.pod(
        containers=[{"name": "app", "run": script, "volumeMounts": mounts}], volumes=[{"name": "v", "emptyDir": {}}]
    )
    pod = await world.until(lambda pod: pod["status"].get("containerStatuses") and status(pod)["restartCount"] == 1)
    assert status(pod)["lastState"]["terminated"]["exitCode"] == 3
    assert await world.output(previous=True) == "run 1\n"

    async def second_runs():
        return await world.output() == "run 2\n"

    await eventually(second_runs)


async def test_a_command_that_does_not_exist_is_explained(world):
    await world.pod(containers=[{"name": "app", "command": ["/no/such"]}], restartPolicy="Never")
    pod = await world.phase("Failed")
    ended = status(pod)["state"]["terminated"]
    assert ended["reason"] == "StartError"
    assert "/no/such" in ended["message"]
    assert "no such file" in ended["message"].lower() or "not found" in ended["message"]


async def test_too_much_memory_ends_as_oom_killed_with_the_limit(world):
    script = "x=a; while :; do x=$x$x; done"
    limits = {"limits": {"memory": "16Mi"}}
    await world.pod(containers=[{"name": "app", "run": script, "resources": limits}], restartPolicy="Never")
    pod = await world.phase("Failed")
    assert status(pod)["state"]["terminated"]["reason"] == "OOMKilled"
    assert status(pod)["state"]["terminated"]["exitCode"] == 137
    await world.daemon.kubelet.settled()
    events = [e["message"] for e in (await world.client.list("events", "default")).items]
    assert "Container app was killed: it used more memory than its limit of 16777216 bytes" in events


async def test_http_tcp_and_exec_probes_reach_the_container(world):
    server = {
        "name": "app", "run": "mkdir /w; cd /w; echo ok > ready; httpd -f -p 8080",
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["test", "-e", "/w/ready"]}, "periodSeconds": 1, "failureThreshold": 1},
    }  # fmt: skip
    await world.pod(containers=[server])
    pod = await world.until(lambda pod: pod["status"].get("containerStatuses") and status(pod)["ready"])
    container = world.daemon.node.engine.containers()[0]
    await world.daemon.kubelet._parts.runtime.exec_sync(container.id, ["rm", "/w/ready"], timeout=5)
    await world.until(lambda pod: not status(pod)["ready"] or status(pod)["restartCount"] == 1)
    await world.until(lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"])
    del pod


async def test_hooks_run_at_both_ends(world):
    host = world.directory / "host"
    host.mkdir()
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo start >> /host/said"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /host/said"]}},
    }
    container = {"name": "app", "lifecycle": lifecycle, "volumeMounts": [{"name": "host", "mountPath": "/host"}]}
    await world.pod(containers=[container], volumes=[{"name": "host", "hostPath": {"path": str(host)}}])
    await world.until(lambda pod: pod["status"].get("containerStatuses") and status(pod)["ready"])
    await world.client.delete("pods", "web", "default")
    await world.until(lambda pod: pod is None)
    assert (host / "said").read_text() == "start\nstop\n"


async def test_a_deleted_pod_hears_sigterm_first(world):
    host = world.directory / "host"
    host.mkdir()
    script = "trap 'echo term > /host/said; exit 0' TERM; while :; do sleep 0.05; done"
    container = {"name": "app", "run": script, "volumeMounts": [{"name": "host", "mountPath": "/host"}]}
    await world.pod(
        containers=[container],
        volumes=[{"name": "host", "hostPath": {"path": str(host)}}],
        terminationGracePeriodSeconds=20,
    )
    await world.phase("Running")
    await asyncio.sleep(0.2)
    await world.client.delete("pods", "web", "default")
    await world.until(lambda pod: pod is None, seconds=10)
    assert (host / "said").read_text() == "term\n"


async def test_a_daemon_that_starts_again_finds_its_pods(world):
    await world.pod("stays", command="echo before; sleep 1000")
    await world.pod("ends", command="sleep 0.5; echo late; exit 7", restartPolicy="Never")
    before = await world.phase("Running", "stays")
    await world.phase("Running", "ends")
    await world.daemon.die()
    await asyncio.sleep(1)
    world.daemon = Daemon(world.directory, world.name)
    await world.daemon.start()
    pod = await world.phase("Failed", "ends")
    assert status(pod)["state"]["terminated"]["exitCode"] == 7
    assert await world.output("ends") == "late\n"
    pod = await world.client.get("pods", "stays", "default")
    assert status(pod)["restartCount"] == 0
    assert status(pod)["containerID"] == status(before)["containerID"]
    await world.client.delete("pods", "stays", "default")
    await world.until(lambda pod: pod is None, "stays")


async def test_a_killed_shim_is_reported_and_nothing_leaks(world):
    await world.pod("never", restartPolicy="Never")
    await world.pod("always")
    await world.phase("Running", "never")
    await world.phase("Running", "always")
    pids = [sandbox.shim_pid for sandbox in world.daemon.node.engine.sandboxes()]
    processes = [container.pid for container in world.daemon.node.engine.containers()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    pod = await world.phase("Failed", "never")
    assert status(pod)["state"]["terminated"]["reason"] == "ShimKilled"
    pod = await world.until(lambda pod: status(pod)["restartCount"] == 1 and status(pod)["ready"], "always")
    assert not any(Path(f"/proc/{pid}/root").exists() for pid in processes)


async def test_a_container_is_entered_and_a_port_reached(world):
    await world.pod(command="echo content > index.html; httpd -f -p 8080")
    pod = await world.phase("Running")
    server = world.daemon.kubelet.server
    asked = SimpleNamespace(
        container="app", command=("sh", "-c", "echo out; echo err >&2; exit 5"), stdin=False, tty=False
    )
    session = await server.exec(pod, asked)
    output = {1: b"", 2: b""}
    while (chunk := await session.read()) is not None:
        output[chunk[0]] += chunk[1]
    assert await session.wait() == 5
    await session.close()
    assert output == {1: b"out\n", 2: b"err\n"}
    reader, writer = await server.port_forward(pod, 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"content\n")
    writer.close()
    await writer.wait_closed()


async def test_followed_logs_are_complete_and_end_with_the_container(world):
    await world.pod(command="for i in $(seq 1 2000); do echo line $i; done", restartPolicy="Never")
    await world.until(lambda pod: pod["status"].get("containerStatuses") and "waiting" not in status(pod)["state"])
    output = await asyncio.wait_for(world.output(follow=True), 10)
    assert output == "".join(f"line {number}\n" for number in range(1, 2001))


async def test_a_port_of_the_host_leads_to_the_pod(world):
    container = {
        "name": "app",
        "run": "echo content > index.html; httpd -f -p 8080",
        "ports": [{"containerPort": 8080, "hostPort": 28080}],
    }
    await world.pod(containers=[container])
    await world.phase("Running")

    async def answers():
        try:
            reader, writer = await asyncio.open_connection(HERE, 28080)
        except OSError:
            return False
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data.endswith(b"content\n")

    await eventually(answers)
    await world.pod("second", containers=[{"name": "app", "ports": [{"containerPort": 8080, "hostPort": 28080}]}])
    pod = await world.until(lambda pod: pod["status"].get("conditions"), "second")
    assert pod["status"]["conditions"][0]["message"] == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )


async def test_the_hosts_network_is_the_pods_when_asked_for(world):
    output = await world.printed("ls /sys/class/net; hostname", hostNetwork=True, name="web")
    assert f"{world.name}0" in output or "eth0" in output
    pod = await world.client.get("pods", "web", "default")
    assert pod["status"]["podIP"] == HERE


async def test_a_running_pod_costs_no_writes(world):
    await world.pod()
    await world.until(lambda pod: pod["status"].get("containerStatuses") and status(pod)["ready"])
    await world.daemon.kubelet.settled()
    await asyncio.sleep(0.3)
    before = (await world.client.list("pods")).resource_version
    world.daemon.kubelet.poke()
    await asyncio.sleep(0.5)
    assert (await world.client.list("pods")).resource_version == before


async def test_a_stop_during_start_leaves_nothing(world):
    for number in range(4):
        await world.pod(f"p{number}")
        await asyncio.sleep(0.01 * number)
        await world.client.delete("pods", f"p{number}", "default", grace_seconds=0 if number % 2 else 1)
    for number in range(4):
        await world.until(lambda pod: pod is None, f"p{number}")

    async def empty():
        engine = world.daemon.node.engine
        return not list(engine.sandboxes()) and not list(engine.containers())

    await eventually(empty)
