"""The Node object: what this machine is, what it has to give, and that it is alive.

The object is written when the kubelet starts and again only when something changed; that it is alive is said by a
Lease, renewed every quarter of its duration (kubernetes.io "Node Status", heartbeats). The duration is long, because
on one machine nobody needs to hear within seconds that the whole machine is gone, and an idle platform should idle.
"""

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from kestrel.base.clock import Clock, rfc3339, rfc3339_micro
from kestrel.base.errors import AlreadyExists, KestrelError
from kestrel.kube.client import Client, JSONObject

log = logging.getLogger(__name__)

LEASE_SECONDS = 240
LEASE_NAMESPACE = "kube-node-lease"
MEMORY_FLOOR = 100 * 1024**2
DISK_FLOOR = Fraction(1, 10)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is: `cpus` in cores, the rest in bytes; `disk` is the filesystem of the data root."""

    cpus: int
    memory: int
    disk: int
    info: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is left now, in bytes, and how many processes there may still be."""

    memory: int
    disk: int
    pids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How the node is known."""

    name: str
    address: str
    pods: int = 110
    labels: Mapping[str, str] = field(default_factory=dict)
    pod_range: str = ""
    versions: tuple[str, str] = ("v1.33.0", "kestrel://0")
    """The kubelet's and the runtime's version."""


def allocatable(machine: Machine, pods: int = 110) -> dict[str, Fraction]:
    """Return what pods may have of the machine, by resource."""
    return {
        "cpu": Fraction(machine.cpus),
        "memory": Fraction(max(machine.memory - MEMORY_FLOOR, 0)),
        "ephemeral-storage": Fraction(machine.disk * (1 - DISK_FLOOR)),
        "pods": Fraction(pods),
    }


def node_object(identity: Identity) -> JSONObject:
    """Return the Node as it is first created; its status is written apart."""
    arch = ARCHITECTURES.get(platform.machine(), platform.machine())
    labels = {
        "kubernetes.io/hostname": identity.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": arch,
        **identity.labels,
    }
    spec = {"podCIDR": identity.pod_range, "podCIDRs": [identity.pod_range]} if identity.pod_range else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": identity.name, "labels": labels}, "spec": spec}


def node_status(identity: Identity, machine: Machine, load: Load, now: datetime, old: JSONObject) -> JSONObject:
    """Return the Node's status; conditions that did not change keep the time of their last change."""
    kubelet, runtime = identity.versions
    given = allocatable(machine, identity.pods)
    return {
        "addresses": [
            {"type": "InternalIP", "address": identity.address},
            {"type": "Hostname", "address": identity.name},
        ],
        "capacity": {
            "cpu": str(machine.cpus),
            "memory": f"{machine.memory // 1024}Ki",
            "ephemeral-storage": f"{machine.disk // 1024}Ki",
            "pods": str(identity.pods),
        },
        "allocatable": {
            "cpu": str(machine.cpus),
            "memory": f"{int(given['memory']) // 1024}Ki",
            "ephemeral-storage": str(int(given["ephemeral-storage"])),
            "pods": str(identity.pods),
        },
        "conditions": conditions(machine, load, now, old),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            **machine.info,
            "kubeletVersion": kubelet,
            "kubeProxyVersion": "",
            "containerRuntimeVersion": runtime,
        },
    }


def conditions(machine: Machine, load: Load, now: datetime, old: JSONObject) -> list[JSONObject]:
    """Return the node's conditions."""
    low_memory, low_disk = load.memory < MEMORY_FLOOR, load.disk < machine.disk * DISK_FLOOR
    wanted = [
        ("MemoryPressure", low_memory, *_words("memory", "KubeletHasInsufficientMemory", low_memory)),
        ("DiskPressure", low_disk, *_words("disk", "KubeletHasDiskPressure", low_disk)),
        ("PIDPressure", load.pids < 1000, *_words("PID", "KubeletHasInsufficientPID", load.pids < 1000)),
        ("Ready", True, "KubeletReady", "kubelet is posting ready status"),
    ]
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    return [_condition(before.get(kind), now, kind, good, reason, text) for kind, good, reason, text in wanted]


def _words(what: str, bad: str, pressed: bool) -> tuple[str, str]:
    if pressed:
        return bad, "kubelet has disk pressure" if what == "disk" else f"kubelet has insufficient {what} available"
    good = {
        "memory": "KubeletHasSufficientMemory",
        "disk": "KubeletHasNoDiskPressure",
        "PID": "KubeletHasSufficientPID",
    }
    text = "kubelet has no disk pressure" if what == "disk" else f"kubelet has sufficient {what} available"
    return good[what], text


def _condition(before: JSONObject | None, now: datetime, kind: str, good: bool, reason: str, text: str) -> JSONObject:
    status = "True" if good else "False"
    same = before is not None and before.get("status") == status
    since = str(before["lastTransitionTime"]) if before is not None and same else rfc3339(now)
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": rfc3339(now),
        "lastTransitionTime": since,
        "reason": reason,
        "message": text,
    }


def look_at_machine(root: Path) -> Machine:
    """Find out what this machine is; `root` is where images and volumes are kept."""
    memory = _meminfo().get("MemTotal", 0)
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    info = {
        "machineID": _text("/etc/machine-id"),
        "systemUUID": _text("/sys/class/dmi/id/product_uuid") or _text("/etc/machine-id"),
        "bootID": _text("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": release.get("PRETTY_NAME", "Linux"),
        "operatingSystem": "linux",
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
    }
    cpus = len(os.sched_getaffinity(0))
    return Machine(cpus=cpus, memory=memory, disk=shutil.disk_usage(root).total, info=info)


def look_at_load(root: Path) -> Load:
    """Find out what is left now."""
    limit = int(_text("/proc/sys/kernel/pid_max") or 32768)
    running = int((_text("/proc/loadavg").split() or ["", "", "", "0/0"])[3].partition("/")[2] or 0)
    return Load(memory=_meminfo().get("MemAvailable", 0), disk=shutil.disk_usage(root).free, pids=limit - running)


def _meminfo() -> dict[str, int]:
    """Read /proc/meminfo as bytes by name."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


class NodeKeeper:
    """Keeps the Node and its Lease."""

    def __init__(self, client: Client, identity: Identity, machine: Machine, root: Path, clock: Clock) -> None:
        self._client = client
        self._identity = identity
        self._machine = machine
        self._root = root
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the Node known, then keep it so."""
        await self._register()
        self._task = asyncio.create_task(self._keep(), name=f"node {self._identity.name}")

    async def stop(self) -> None:
        """Stop; the node stays as it was said to be."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _register(self) -> None:
        wanted = node_object(self._identity)
        try:
            await self._client.create("nodes", wanted)
        except AlreadyExists:
            labels = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            await self._client.patch("nodes", self._identity.name, labels)
        await self._report()
        try:
            await self._renew()
        except KestrelError as error:
            # Its namespace may be made a moment later; the next renewal comes soon enough.
            log.warning("lease of node %s: %s", self._identity.name, error)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                await self._report()
                await self._renew()
            except KestrelError as error:
                log.warning("node %s: %s", self._identity.name, error)

    async def _report(self) -> None:
        node = await self._client.get("nodes", self._identity.name)
        old: dict[str, Any] = node.get("status") or {}
        new = node_status(self._identity, self._machine, look_at_load(self._root), self._clock.now(), old)
        if _without_heartbeats(new) != _without_heartbeats({key: old.get(key) for key in new}):
            await self._client.patch_status("nodes", self._identity.name, new)

    async def _renew(self) -> None:
        name, now = self._identity.name, rfc3339_micro(self._clock.now())
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        if await self._client.find("leases.coordination.k8s.io", name, LEASE_NAMESPACE) is not None:
            await self._client.patch("leases.coordination.k8s.io", name, {"spec": spec}, LEASE_NAMESPACE)
            return
        metadata = {"name": name, "namespace": LEASE_NAMESPACE}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        await self._client.create("leases.coordination.k8s.io", body, LEASE_NAMESPACE)


def _without_heartbeats(status: JSONObject) -> JSONObject:
    quiet = [{k: v for k, v in c.items() if k != "lastHeartbeatTime"} for c in status.get("conditions") or ()]
    return status | {"conditions": quiet}
