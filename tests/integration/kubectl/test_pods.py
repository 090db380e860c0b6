"""The life of a pod as Kubernetes documents it, seen through the whole platform."""

import socket
import time
import urllib.request
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kestrel.testing import broken
from kestrel.testing.instance import free_port
from kestrel.testing.kubectl import IMAGE, condition, container, pod, shell, status_of, thing

pytestmark = [pytest.mark.root, pytest.mark.clients]


def ended(found, name=""):
    """Return the last end of a container."""
    status = status_of(found, name)
    return (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}


# images


def test_an_image_that_comes_later_is_noticed(kube):
    """ErrImagePull, then ImagePullBackOff with the reason, then the image is pushed and the pod runs."""
    name = f"{kube.instance.registry}/{kube.namespace}:1"
    kube.apply(pod("late", container(image=name)))
    assert "back-off pulling image" in kube.waiting("late", "ImagePullBackOff")["message"].lower()
    assert name in kube.event("late", "Failed", "Failed to pull image")
    kube.instance("tag", IMAGE, name)
    kube.instance("push", name)
    kube.instance("rmi", name)
    kube.until("late", lambda p: condition(p, "Ready") == "True", timeout=30)


def test_images_that_cannot_be_had_say_why(kube):
    kube.apply(
        pod("never", container(image="nosuch:1", imagePullPolicy="Never")),
        pod("invalid", container(image="UPPER/Case:1")),
        pod("closed", container(image="127.0.0.1:1/x:1")),
    )
    assert "not present with pull policy of Never" in kube.waiting("never", "ErrImageNeverPull")["message"]
    assert "must be lower case" in kube.waiting("invalid", "InvalidImageName")["message"]
    assert "connection refused" in kube.waiting("closed", "ImagePullBackOff")["message"]


class Guarded(BaseHTTPRequestHandler):
    """The instance's registry behind a password."""

    upstream = ""
    seen: "list[str]" = []

    def do_GET(self):
        expected = "Basic " + b64encode(b"robot:hunter2").decode()
        given = self.headers.get("Authorization", "")
        if given != expected:
            self.seen.append("refused")
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="guarded"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = urllib.request.Request(self.upstream + self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
        with urllib.request.urlopen(asked) as answer:
            data = answer.read()
            self.send_response(200)
            for name in ("Content-Type", "Docker-Content-Digest"):
                if answer.headers.get(name):
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_):
        pass


@pytest.fixture
def guarded(kube):
    """A registry that wants robot's password, with the image `guarded:1`."""
    name = f"{kube.instance.registry}/guarded:1"
    kube.instance("tag", IMAGE, name)
    kube.instance("push", name)
    kube.instance("rmi", name)
    handler = type("Handler", (Guarded,), {"upstream": f"http://{kube.instance.registry}", "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pull_secret_opens_a_registry_with_a_password(kube, guarded):
    image = f"{guarded}/guarded:1"
    kube.apply(pod("stranger", container(image=image)))
    assert "ErrImagePull" in kube.waiting("stranger", "ImagePullBackOff")["message"]
    who = (f"--docker-server={guarded}", "--docker-username=robot", "--docker-password=hunter2")
    kube("create", "secret", "docker-registry", "door", *who)
    kube.apply(pod("friend", container(image=image), imagePullSecrets=[{"name": "door"}]))
    kube.running("friend")


# init containers, sidecars, restarts


def test_init_containers_run_in_order_before_the_others(kube):
    mount = [{"name": "d", "mountPath": "/d"}]
    kube.apply(
        pod(
            "app",
            shell("cat /d/log; sleep 1000", volumeMounts=mount),
            initContainers=[
                shell("echo one >> /d/log", "first", volumeMounts=mount),
                shell("echo side >> /d/log; sleep 1000", "side", volumeMounts=mount, restartPolicy="Always"),
                shell("sleep 0.2; echo two >> /d/log", "second", volumeMounts=mount),
            ],
            volumes=[{"name": "d", "emptyDir": {}}],
        )
    )
    found = kube.running("app")
    assert kube("logs", "app", "-c", "main").out == "one\nside\ntwo\n"
    assert ended(found, "first")["reason"] == "Completed"
    assert status_of(found, "side")["ready"]


def test_a_failing_init_container_keeps_the_pod_from_running(kube):
    failing = [shell("exit 4", "setup")]
    kube.apply(pod("never", initContainers=failing, restartPolicy="Never"), pod("again", initContainers=failing))
    found = kube.phase("never", "Failed")
    assert ended(found, "setup")["exitCode"] == 4
    assert kube("get", "pod", "never", "--no-headers").out.split()[2] == "Init:Error"
    assert "back-off 10s" in kube.waiting("again", "CrashLoopBackOff", "setup")["message"]


def test_a_sidecar_does_not_keep_a_finished_pod_alive(kube):
    side = shell("trap 'exit 0' TERM; while true; do sleep 0.1; done", "side", restartPolicy="Always")
    kube.apply(pod("job", shell("echo done"), restartPolicy="Never", initContainers=[side]))
    kube.phase("job", "Succeeded")


def test_restart_policies_decide_what_an_end_means(kube):
    kube.apply(
        pod("good", shell("exit 0"), restartPolicy="OnFailure"),
        pod("bad", shell("exit 3"), restartPolicy="Never"),
        pod("retry", shell("exit 3"), restartPolicy="OnFailure"),
        pod("always", shell("exit 0")),
    )
    assert ended(kube.phase("good", "Succeeded"))["reason"] == "Completed"
    found = kube.phase("bad", "Failed")
    assert (ended(found)["exitCode"], ended(found)["reason"]) == (3, "Error")
    for name in ("retry", "always"):
        assert "restarting failed container=main" in kube.waiting(name, "CrashLoopBackOff")["message"]
        assert "Back-off restarting failed container main" in kube.event(name, "BackOff")
        assert status_of(kube.get("pods", name) or {})["restartCount"] == 1


# probes and hooks


def test_probes_decide_readiness_and_restarts(kube):
    def probe(kind: str, **what):
        return {f"{kind}Probe": {**what, "periodSeconds": 1, "failureThreshold": 1}}

    page = {"httpGet": {"port": 80, "path": "/ok"}}
    kube.apply(
        pod(
            "ready",
            shell("mkdir /www; exec httpd -f -p 80 -h /www", "web", **probe("readiness", **page)),
            container("tcp", "httpd", "-f", "-p", "81", **probe("readiness", tcpSocket={"port": 81})),
            shell("touch /ok; sleep 1000", "exec", **probe("readiness", exec={"command": ["ls", "/ok"]})),
        ),
        pod("sick", container(**probe("liveness", exec={"command": ["sh", "-c", "echo unwell; exit 1"]}))),
        pod("slow", container(**probe("startup", exec={"command": ["false"]}))),
        pod("rpc", container(**probe("readiness", grpc={"port": 82}))),
    )
    assert "HTTP probe failed with statuscode: 404" in kube.event("ready", "Unhealthy", "HTTP")
    found = kube.until("ready", lambda p: status_of(p, "tcp").get("ready") and status_of(p, "exec").get("ready"))
    assert condition(found, "ContainersReady") == "False"
    kube("exec", "ready", "-c", "web", "--", "touch", "/www/ok")
    kube.running("ready")
    assert "unwell" in kube.event("sick", "Unhealthy", "Liveness probe failed")
    assert "failed liveness probe, will be restarted" in kube.event("sick", "Killing")
    assert "Startup probe failed" in kube.event("slow", "Unhealthy")
    assert "gRPC probes are not supported" in kube.event("rpc", "Unimplemented")


def test_hooks_run_after_the_start_and_before_the_end(kube, tmp_path):
    mount = [{"name": "d", "mountPath": "/d"}]
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo hello > /d/start"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo bye > /d/stop"]}},
    }
    volume = {"name": "d", "hostPath": {"path": str(tmp_path)}}
    kube.apply(
        pod(
            "polite",
            shell("trap 'exit 0' TERM; while true; do sleep 0.1; done", volumeMounts=mount, lifecycle=hooks),
            volumes=[volume],
            terminationGracePeriodSeconds=10,
        ),
        pod("broken", shell("sleep 1000", lifecycle={"postStart": {"exec": {"command": ["false"]}}})),
    )
    kube.running("polite")
    assert (tmp_path / "start").read_text() == "hello\n"
    kube("delete", "pod", "polite")
    assert (tmp_path / "stop").read_text() == "bye\n"
    assert "PostStartHook failed" in kube.event("broken", "FailedPostStartHook")


# ends


def test_a_deleted_pod_may_finish_what_it_does(kube, tmp_path):
    script = "trap 'echo asked > /d/out; sleep 0.5; echo done >> /d/out; exit 0' TERM; while true; do sleep 0.1; done"
    volume = {"name": "d", "hostPath": {"path": str(tmp_path)}}
    kube.apply(
        pod(
            "worker",
            shell(script, volumeMounts=[{"name": "d", "mountPath": "/d"}]),
            volumes=[volume],
            terminationGracePeriodSeconds=20,
        )
    )
    kube.running("worker")
    kube("delete", "pod", "worker")
    assert (tmp_path / "out").read_text() == "asked\ndone\n"


def test_a_deaf_pod_is_killed_when_its_grace_is_over(kube):
    kube.apply(pod("deaf", shell("trap '' TERM; while true; do sleep 0.1; done"), terminationGracePeriodSeconds=2))
    kube.running("deaf")
    began = time.monotonic()
    kube("delete", "pod", "deaf")
    assert time.monotonic() - began > 1.5


def test_a_pod_ends_when_its_deadline_is_over(kube):
    kube.apply(pod("busy", activeDeadlineSeconds=1))
    found = kube.phase("busy", "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"


def test_a_container_that_takes_too_much_memory_is_said_to_have(kube):
    kube.apply(
        pod(
            "greedy",
            container("main", "tail", "/dev/zero", resources={"limits": {"memory": "16Mi"}}),
            restartPolicy="Never",
        )
    )
    assert ended(kube.phase("greedy", "Failed"))["reason"] == "OOMKilled"
    assert "limit of 16777216 bytes" in kube.event("greedy", "OOMKilling")
    assert kube("get", "pod", "greedy", "--no-headers").out.split()[2] == "OOMKilled"


def test_a_command_that_does_not_exist_is_named(kube):
    kube.apply(pod("typo", container("main", "nosuchcommand")))
    assert 'exec: "nosuchcommand": executable file not found' in kube.event("typo", "Failed")
    found = kube.until("typo", ended)
    assert ended(found)["exitCode"] == 128


def test_the_last_words_of_a_container_are_shown(kube):
    kube.apply(
        pod("said", shell("echo my last words > /dev/termination-log; exit 1"), restartPolicy="Never"),
        pod(
            "logged",
            shell("echo from the log; exit 1", terminationMessagePolicy="FallbackToLogsOnError"),
            restartPolicy="Never",
        ),
    )
    assert ended(kube.phase("said", "Failed"))["message"] == "my last words\n"
    assert ended(kube.phase("logged", "Failed"))["message"] == "from the log\n"


# configuration


def test_the_environment_comes_from_fields_maps_and_secrets(kube):
    kube.apply(
        thing("ConfigMap", "settings", data={"COLOR": "blue", "SIZE": "big"}),
        thing("Secret", "word", stringData={"PASS": "hunter2"}),
    )
    field = lambda path: {"valueFrom": {"fieldRef": {"fieldPath": path}}}  # noqa: E731 - a table of five follows
    kube.apply(
        pod(
            "env",
            shell(
                "env | sort",
                envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "C_"}],
                env=[
                    {"name": "POD", **field("metadata.name")},
                    {"name": "LABEL", **field("metadata.labels['app']")},
                    {"name": "NODE", **field("spec.nodeName")},
                    {"name": "IP", **field("status.podIP")},
                    {
                        "name": "LIMIT",
                        "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
                    },
                    {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "word", "key": "PASS"}}},
                    {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": True}}},
                    {"name": "BOTH", "value": "$(POD)-$(PASS)-$$(NO)"},
                ],
                resources={"limits": {"memory": "32Mi"}},
            ),
            labels={"app": "web"},
            restartPolicy="Never",
        )
    )
    found = kube.phase("env", "Succeeded")
    got = dict(line.split("=", 1) for line in kube("logs", "env").out.splitlines())
    expected = {"C_COLOR": "blue", "C_SIZE": "big", "POD": "env", "LABEL": "web", "LIMIT": "32", "PASS": "hunter2"}
    assert expected.items() <= got.items()
    assert got["BOTH"] == "env-hunter2-$(NO)"
    assert got["IP"] == found["status"]["podIP"]
    assert "MAYBE" not in got


def test_what_is_missing_is_named_and_its_arrival_noticed(kube):
    key = lambda kind, name: [{"name": "A", "valueFrom": {f"{kind}KeyRef": {"name": name, "key": "k"}}}]  # noqa: E731
    kube.apply(
        thing("Secret", "have", stringData={"other": "x"}),
        pod("nomap", container(env=key("configMap", "absent"))),
        pod("nokey", container(env=key("secret", "have"))),
        pod(
            "novolume",
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "configMap": {"name": "absent"}}],
        ),
    )
    assert 'configmap "absent" not found' in kube.waiting("nomap", "CreateContainerConfigError")["message"]
    assert "couldn't find key k in Secret" in kube.waiting("nokey", "CreateContainerConfigError")["message"]
    assert 'configmap "absent" not found' in kube.event("novolume", "FailedMount")
    kube.apply(thing("ConfigMap", "absent", data={"k": "v"}), thing("Secret", "have", stringData={"k": "v"}))
    for name in ("nomap", "nokey", "novolume"):
        kube.running(name)


def test_a_pod_that_fits_nowhere_says_why(kube):
    kube.apply(
        pod("big", container(resources={"requests": {"cpu": "640"}})),
        pod("picky", nodeSelector={"disk": "golden"}),
    )
    assert "Insufficient cpu" in kube.event("big", "FailedScheduling")
    assert "didn't match Pod's node affinity/selector" in kube.event("picky", "FailedScheduling")


# the network


def test_pods_reach_each_other_by_address_and_by_name(kube):
    kube.apply(pod("web", shell("echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")), pod("client"))
    address = kube.running("web")["status"]["podIP"]
    kube.running("client")
    for host in (address, "web", f"web.{kube.namespace}.pod.cluster.local"):
        assert kube("exec", "client", "--", "wget", "-qO-", f"http://{host}/index.html").out == "hello\n"
    assert kube("exec", "client", "--", "hostname").out == "client\n"


def test_containers_of_a_pod_share_localhost_and_if_asked_processes(kube):
    kube.apply(
        pod(
            "pair",
            container("web", "httpd", "-f", "-p", "80", "-h", "/etc"),
            container("b"),
            shareProcessNamespace=True,
        )
    )
    kube.running("pair")
    assert kube("exec", "pair", "-c", "b", "--", "wget", "-qO-", "http://localhost/hostname").out == "pair\n"
    assert "httpd -f -p 80" in kube("exec", "pair", "-c", "b", "--", "ps").out


def test_a_host_port_leads_to_the_pod_and_cannot_be_taken_twice(kube):
    port, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    with taken:
        busy = taken.getsockname()[1]
        kube.apply(
            pod(
                "web",
                container(
                    "main", "httpd", "-f", "-p", "80", "-h", "/etc", ports=[{"containerPort": 80, "hostPort": port}]
                ),
            ),
            pod("busy", container(ports=[{"containerPort": 80, "hostPort": busy, "hostIP": "127.0.0.1"}])),
        )
        kube.running("web")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/hostname", timeout=5) as answer:
            assert answer.read() == b"web\n"
        assert "already in use by" in kube.event("busy", "FailedCreatePodSandBox")
        kube.apply(pod("second", container(ports=[{"containerPort": 80, "hostPort": port}])))
        assert "didn't have free ports" in kube.event("second", "FailedScheduling")
    kube.until("busy", lambda p: condition(p, "Ready") == "True", timeout=30)


def test_names_and_resolvers_can_be_given(kube):
    kube.apply(
        pod(
            "named",
            hostname="other",
            subdomain="sub",
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["alias"]}],
            dnsPolicy="None",
            dnsConfig={
                "nameservers": ["10.9.9.9"],
                "searches": ["example.com"],
                "options": [{"name": "ndots", "value": "2"}],
            },
        )
    )
    kube.running("named")
    told = kube("exec", "named", "--", "cat", "/etc/resolv.conf", "/etc/hosts").out
    assert "nameserver 10.9.9.9" in told
    assert "search example.com" in told
    assert "options ndots:2" in told
    assert "10.1.2.3\talias" in told
    assert kube("exec", "named", "--", "hostname").out == "other\n"


# rights


def test_the_security_context_is_what_the_process_gets(kube):
    script = "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>&1; touch /v/x"
    script += "; stat -c %g /v/x"
    kube.apply(
        pod(
            "low",
            shell(
                script,
                securityContext={
                    "runAsUser": 1000,
                    "runAsGroup": 3000,
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                volumeMounts=[{"name": "v", "mountPath": "/v"}],
            ),
            securityContext={"fsGroup": 2000, "supplementalGroups": [4000]},
            volumes=[{"name": "v", "emptyDir": {}}],
            restartPolicy="Never",
        ),
        pod("root", container(securityContext={"runAsNonRoot": True})),
    )
    kube.phase("low", "Succeeded")
    lines = kube("logs", "low").out.splitlines()
    assert lines[:2] == ["1000", "3000"]
    assert set(lines[2].split()) == {"2000", "3000", "4000"}
    assert lines[3].split()[1] == "0000000000000000"
    assert lines[4].split()[1] == "1"
    assert "Read-only file system" in lines[5]
    assert lines[6] == "2000"
    assert (
        "container has runAsNonRoot and image will run as root"
        in kube.waiting("root", "CreateContainerConfigError")["message"]
    )


def test_a_pod_is_told_apart_from_the_host(kube):
    kube.apply(pod("box"))
    kube.running("box")
    seen = kube("exec", "box", "--", "sh", "-c", "ps | wc -l; ls /sys/class/net; cat /proc/1/comm").out
    assert "lo" in seen
    assert "sleep" in seen
    assert "docker0" not in seen


def test_a_program_that_cannot_run_says_why_in_the_pod_s_status(kube, tmp_path):
    context = broken.make(tmp_path / "odd")
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY x /x\n")
    kube.instance("build", "-q", "-t", "odd-pods", str(context))
    containers = [
        {**container(f"c{number}", program), "image": "odd-pods", "imagePullPolicy": "Never"}
        for number, (program, _, _) in enumerate(broken.CANNOT_RUN)
    ]
    containers.append(container("cwd", "true", workingDir="/etc/passwd"))
    kube.apply(pod("odd", *containers, restartPolicy="Never"))
    failed = kube.phase("odd", "Failed")
    for number, (program, _, words) in enumerate(broken.CANNOT_RUN):
        ended = status_of(failed, f"c{number}")["state"]["terminated"]
        assert (ended["reason"], ended["exitCode"]) == ("StartError", 128), program
        assert all(word in ended["message"] for word in words), ended["message"]
    assert "not a directory" in status_of(failed, "cwd")["state"]["terminated"]["message"]
