"""A Pod as the engine's sandbox and container configurations; pure.

Names that other systems read (labels, cgroup groups, the log's path, the host name rules) are Kubernetes' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kestrel.engine.model import ContainerConfig, DnsConfig, Mount, SandboxConfig
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.env import expand_all
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.kubelet.resources import cgroup_parent, container_resources
from kestrel.kube.kubelet.security import security, sysctls, users
from kestrel.network import PortMapping
from kestrel.pods.model import ATTEMPT, POD_NAME, POD_NAMESPACE, POD_UID, SANDBOX_ATTEMPT, Attempt, ImageInfo

HOST_NAME_LIMIT = 63
SEARCH_LIMIT = 32
SERVER_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is the same for every pod of this node.

    `dns` are the cluster's resolvers; empty means the platform's own on the bridge. `services` are variables every
    container gets (KUBERNETES_SERVICE_HOST and its kind). `serves_domain` says that the resolver answers for the
    cluster's domain itself; before it does, searching there would send every short name out into the world first.
    """

    node: str
    address: str
    paths: Paths
    seccomp_root: Path
    domain: str = "cluster.local"
    serves_domain: bool = False
    dns: tuple[str, ...] = ()
    services: Mapping[str, str] | None = None
    memory: int = 0


def sandbox_config(pod: JSONObject, attempt: int, settings: Settings) -> SandboxConfig:
    """Return the sandbox of a pod; raises FailedPrecondition for what the node does not allow."""
    spec, metadata = pod["spec"], pod["metadata"]
    labels = {
        **(metadata.get("labels") or {}),
        POD_NAME: pods.name(pod),
        POD_NAMESPACE: pods.namespace(pod),
        POD_UID: pods.uid(pod),
    }
    return SandboxConfig(
        name=f"k8s_POD_{pods.name(pod)}_{pods.namespace(pod)}_{pods.uid(pod)}_{attempt}",
        hostname=settings.node if pods.host_network(pod) else hostname(pod),
        network="host" if pods.host_network(pod) else "bridge",
        users=users(pod),
        ports=() if pods.host_network(pod) else ports(pod),
        dns=dns(pod, settings),
        hosts=hosts(pod, settings),
        names=resolvable_names(pod, settings),
        share_pid=bool(spec.get("shareProcessNamespace")),
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        sysctls=sysctls(pod),
        cgroup_parent=cgroup_parent(pod),
        labels=labels,
        annotations={SANDBOX_ATTEMPT: str(attempt)},
    )


def hostname(pod: JSONObject) -> str:
    """Return the pod's own name for itself, at most 63 characters and never ending in a dash or dot."""
    return str(pod["spec"].get("hostname") or pods.name(pod))[:HOST_NAME_LIMIT].rstrip("-.")


def resolvable_names(pod: JSONObject, settings: Settings) -> tuple[str, ...]:
    """Return the names under which others find the pod: its own, and those below its namespace and subdomain."""
    own, namespace = hostname(pod), pods.namespace(pod)
    names = [own, f"{own}.{namespace}.pod.{settings.domain}"]
    if pod["spec"].get("subdomain"):
        names.append(f"{own}.{pod['spec']['subdomain']}.{namespace}.svc.{settings.domain}")
    return tuple(dict.fromkeys(names))


def ports(pod: JSONObject) -> tuple[PortMapping, ...]:
    """Return the ports of the host that lead to the pod."""
    return tuple(
        PortMapping(
            container_port=int(port["containerPort"]),
            host_port=int(port["hostPort"]),
            host_ip=str(port.get("hostIP") or ""),
            protocol=str(port.get("protocol") or "TCP").lower(),
        )
        for container in pods.every_container(pod)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def dns(pod: JSONObject, settings: Settings) -> DnsConfig:
    """Return what resolv.conf says, by policy and `dnsConfig` (kubernetes.io "DNS for Services and Pods")."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    extra = pod["spec"].get("dnsConfig") or {}
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str | None] = {}
    cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pods.host_network(pod))
    if cluster:
        servers += settings.dns
    if cluster and settings.serves_domain:
        below = f"svc.{settings.domain}"
        searches += [f"{pods.namespace(pod)}.{below}", below, settings.domain]
        options["ndots"] = "5"
    servers += extra.get("nameservers") or ()
    searches += extra.get("searches") or ()
    options |= {str(o["name"]): o.get("value") for o in extra.get("options") or ()}
    return DnsConfig(
        servers=tuple(dict.fromkeys(servers))[:SERVER_LIMIT],
        searches=tuple(dict.fromkeys(searches))[:SEARCH_LIMIT],
        options=tuple(name if value is None else f"{name}:{value}" for name, value in options.items()),
    )


def hosts(pod: JSONObject, settings: Settings) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the further lines of /etc/hosts."""
    aliases: Sequence[JSONObject] = pod["spec"].get("hostAliases") or ()
    lines = [(str(alias["ip"]), tuple(alias.get("hostnames") or ())) for alias in aliases]
    if pods.host_network(pod):
        lines.append((settings.address, (settings.node,)))
    return tuple(lines)


def container_config(
    pod: JSONObject,
    container: JSONObject,
    settings: Settings,
    *,
    attempt: int,
    sandbox: str,
    image: ImageInfo,
    env: Mapping[str, str],
    mounts: Sequence[Mount],
    processes_of: str = "",
) -> ContainerConfig:
    """Return one start of a container; raises FailedPrecondition for what cannot be granted.

    `processes_of` is the id of the container that an ephemeral one looks into.
    """
    identity = Attempt(
        uid=pods.uid(pod),
        pod=pods.name(pod),
        namespace=pods.namespace(pod),
        container=container["name"],
        number=attempt,
    )
    command, args = container.get("command"), container.get("args")
    return ContainerConfig(
        name=identity.engine_name,
        image=image.id,
        command=expand_all(command, env) if command else None,
        # With a command of its own and no arguments, the image's CMD is not used (kubernetes.io "Define a Command").
        args=expand_all(args, env) if args else (() if command else None),
        env=tuple(env.items()),
        cwd=str(container.get("workingDir") or ""),
        tty=bool(container.get("tty")),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        mounts=tuple(mounts),
        resources=container_resources(pod, container, node_memory=settings.memory),
        security=security(pod, container, image, seccomp_root=settings.seccomp_root),
        sandbox=sandbox,
        processes_of=processes_of,
        stop_signal=str((container.get("lifecycle") or {}).get("stopSignal") or image.stop_signal),
        stop_timeout=pods.grace(pod),
        log_path=str(settings.paths.log(pod, container["name"], attempt)),
        labels=identity.labels,
        annotations={ATTEMPT: str(attempt), "io.kubernetes.container.image": str(container.get("image", ""))},
    )
