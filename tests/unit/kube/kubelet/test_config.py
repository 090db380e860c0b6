"""Pods as the engine's configurations."""

from dataclasses import replace
from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.engine.model import DnsConfig
from kestrel.kube.kubelet import KubeletSettings
from kestrel.kube.kubelet.config import container_config, dns, hostname, sandbox_config
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.kubelet.resources import cgroup_parent, container_resources, oom_score
from kestrel.kube.kubelet.security import security
from kestrel.pods.model import ImageInfo

ROOT = Path("/root-of-test")
SETTINGS = KubeletSettings(
    node="node", address="192.0.2.1", serves_domain=True, seccomp_root=ROOT / "seccomp", memory=2**30,
    paths=Paths(logs=ROOT / "logs", state=ROOT / "state", volatile=ROOT / "run"),
)  # fmt: skip


def image(user="", stop_signal=""):
    return ImageInfo(id="sha256:1", digest="sha256:2", names=(), size=1, user=user, stop_signal=stop_signal)


def made(make, container, stop_signal=""):
    pod = make.pod()
    spec = {"name": "app", "image": "busybox", **container}
    chosen = image(stop_signal=stop_signal)
    return container_config(pod, spec, SETTINGS, attempt=2, sandbox="s", image=chosen, env={"A": "1"}, mounts=())


@pytest.mark.parametrize(
    ("container", "command", "args"),
    [
        ({}, None, None),
        ({"command": ["c", "$(A)"]}, ("c", "1"), ()),
        ({"args": ["a", "$(B)"]}, None, ("a", "$(B)")),
        ({"command": ["c"], "args": ["a"]}, ("c",), ("a",)),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(make, container, command, args):
    found = made(make, container)
    assert (found.command, found.args) == (command, args)


def test_a_container_is_labelled_and_logged_as_a_kubelet_does(make):
    found = made(make, {}, stop_signal="SIGQUIT")
    assert found.name == "k8s_app_web_default_u1_2"
    assert found.labels["io.kubernetes.pod.uid"] == "u1"
    assert found.labels["io.kubernetes.container.name"] == "app"
    assert found.annotations["io.kubernetes.container.restartCount"] == "2"
    assert found.log_path == str(ROOT / "logs" / "default_web_u1" / "app" / "2.log")
    assert found.stop_signal == "SIGQUIT"


def test_a_sandbox_has_names_ports_and_namespaces(make):
    pod = make.pod(hostname="own", subdomain="sub", hostIPC=True, hostPID=True)
    pod["spec"]["containers"][0]["ports"] = [
        {"containerPort": 80, "hostPort": 8080, "protocol": "UDP"},
        {"containerPort": 81},
    ]
    found = sandbox_config(pod, 3, SETTINGS)
    assert found.hostname == "own"
    assert found.names == ("own", "own.default.pod.cluster.local", "own.sub.default.svc.cluster.local")
    (port,) = found.ports
    assert (port.container_port, port.host_port, port.protocol) == (80, 8080, "udp")
    assert (found.host_ipc, found.host_pid, found.share_pid) == (True, True, False)
    assert found.annotations["io.kubernetes.sandbox.attempt"] == "3"


def test_a_pod_on_the_hosts_network_is_called_as_the_host(make):
    found = sandbox_config(make.pod(hostNetwork=True), 0, SETTINGS)
    assert (found.network, found.hostname, found.ports) == ("host", "node", ())


def test_a_long_name_makes_a_valid_hostname(make):
    pod = make.pod(metadata={"name": "a" * 62 + "-b"})
    assert hostname(pod) == "a" * 62


def test_dns_follows_the_policy(make):
    searches = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
    assert dns(make.pod(), SETTINGS) == DnsConfig(searches=searches, options=("ndots:5",))
    assert dns(make.pod(dnsPolicy="Default"), SETTINGS) == DnsConfig()
    assert dns(make.pod(hostNetwork=True), SETTINGS) == DnsConfig()
    assert dns(make.pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"), SETTINGS).searches == searches
    extra = {
        "nameservers": ["192.0.2.53"],
        "searches": ["a.test"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}],
    }
    found = dns(make.pod(dnsConfig=extra), SETTINGS)
    assert found == DnsConfig(servers=("192.0.2.53",), searches=(*searches, "a.test"), options=("ndots:2", "rotate"))


def test_nobody_searches_a_domain_that_is_not_served(make):
    assert dns(make.pod(), replace(SETTINGS, serves_domain=False)) == DnsConfig()


def test_an_unsafe_sysctl_is_refused(make):
    good = make.pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]})
    assert sandbox_config(good, 0, SETTINGS).sysctls == {"net.ipv4.tcp_syncookies": "1"}
    bad = make.pod(securityContext={"sysctls": [{"name": "kernel.panic", "value": "1"}]})
    with pytest.raises(FailedPrecondition, match=r'forbidden sysctl: "kernel\.panic" not allowlisted'):
        sandbox_config(bad, 0, SETTINGS)


def rights(make, own=None, whole=None, user=""):
    pod = make.pod(securityContext=whole or {})
    return security(pod, {"name": "app", "securityContext": own or {}}, image(user), seccomp_root=ROOT)


def test_the_containers_security_wins_over_the_pods(make):
    whole = {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4, 3]}
    assert rights(make, whole=whole).user == "1:2"
    assert rights(make, {"runAsUser": 9}, whole).user == "9:2"
    assert rights(make, whole=whole).groups == (4, 3)
    assert rights(make, {"runAsGroup": 7}, user="app:5").user == "app:7"
    assert rights(make).user == ""


def test_seccomp_is_on_unless_refused(make):
    assert rights(make).seccomp == "default"
    assert rights(make, {"seccompProfile": {"type": "Unconfined"}}).seccomp == "unconfined"
    local = {"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}
    assert rights(make, local).seccomp == str(ROOT / "a/b.json")


@pytest.mark.parametrize(
    ("own", "user", "problem"),
    [
        ({}, "", "image will run as root"),
        ({}, "0:0", "image will run as root"),
        ({}, "app", r"image has non-numeric user \(app\)"),
        ({"runAsUser": 0}, "5", "runAsUser breaks non-root policy"),
        ({}, "1000", ""),
        ({"runAsUser": 5}, "", ""),
    ],
)
def test_run_as_non_root_is_kept(make, own, user, problem):
    if not problem:
        rights(make, {"runAsNonRoot": True, **own}, user=user)
        return
    with pytest.raises(FailedPrecondition, match=problem):
        rights(make, {"runAsNonRoot": True, **own}, user=user)


def sized(make, requests=None, limits=None):
    pod = make.pod()
    pod["spec"]["containers"][0]["resources"] = {"requests": requests or {}, "limits": limits or {}}
    return pod, pod["spec"]["containers"][0]


def test_requests_and_limits_become_shares_quota_and_bound(make):
    pod, container = sized(make, {"cpu": "250m"}, {"cpu": "500m", "memory": "64Mi"})
    found = container_resources(pod, container, node_memory=2**30)
    assert (found.cpu_shares, found.cpu_millis, found.memory, found.memory_swap) == (256, 500, 2**26, 2**26)
    assert container_resources(*sized(make), node_memory=2**30).cpu_shares == 2


@pytest.mark.parametrize(
    ("requests", "limits", "group", "score"),
    [
        ({}, {}, "kubepods-besteffort", 1000),
        ({"memory": "256Mi"}, {}, "kubepods-burstable", 750),
        ({"memory": "1023Mi"}, {}, "kubepods-burstable", 3),
        ({"cpu": "1m"}, {}, "kubepods-burstable", 999),
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, "kubepods", -997),
        ({}, {"cpu": "1", "memory": "1Gi"}, "kubepods", -997),
    ],
)
def test_quality_of_service_decides_group_and_oom_score(make, requests, limits, group, score):
    pod, container = sized(make, requests, limits)
    assert cgroup_parent(pod) == group
    assert oom_score(pod, container, node_memory=2**30) == score
