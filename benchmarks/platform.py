"""The platform itself: how soon it is there, and what it costs when nothing happens."""

import json
import os
import subprocess
import time
from collections.abc import Iterator

from benchmarks.bed import Bed, daemon_pid, launcher, wait_for
from benchmarks.measure import Row, command, cpu_seconds, pss, rss
from benchmarks.pods import Api

IDLE = 20.0  # seconds over which the idle daemon's processor time is taken


def ready(bed: Bed) -> Iterator[Row]:
    """From an empty directory to a node that is Ready: `kestrel up`, then the API asked until it says so."""
    row = Row("platform ready from nothing (`kestrel up` to a Ready node)", 1.5, "s")
    row.reference = "etcd + kube-apiserver alone 2.7 s, k3d 20 s, kind 33 s"
    up = Row("of that until `kestrel up` has returned", None, "s")
    for number in range(bed.count(5)):
        place = bed.place("fresh")
        environment = {
            **os.environ,
            "KESTREL_ROOT": f"{place}/root",
            "KESTREL_RUN": f"{place}/run",
            "KESTREL_NAME": bed.names.fresh,
            "KESTREL_KUBERNETES_PORT": str(26600 + number),
            "KESTREL_REGISTRY_PORT": str(25600 + number),
            "KESTREL_KUBECONFIG": f"{place}/kubeconfig",
        }
        try:
            began = time.perf_counter()
            up.add("kestrel", command([str(launcher()), "up"], environment))
            api = Api(place / "kubeconfig")
            wait_for(lambda api=api: _node_is_ready(api), "the node to be Ready")  # type: ignore[misc]
            row.add("kestrel", time.perf_counter() - began)
        finally:
            subprocess.run([launcher(), "down", "--all"], env=environment, capture_output=True)
    yield row
    yield up


def _node_is_ready(api: Api) -> bool:
    nodes = json.loads(api("GET", "/api/v1/nodes"))["items"]
    conditions = [each for node in nodes for each in node.get("status", {}).get("conditions", ())]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def idle(bed: Bed) -> Iterator[Row]:
    """The daemon (and its zygote) with nothing to do, beside dockerd and its containerd."""
    assert bed.kestrel
    assert bed.docker
    seconds = 5.0 if bed.quick else IDLE
    groups = {"kestrel": _family(daemon_pid()), "docker": _family(_named("dockerd"))}
    time.sleep(3)
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in groups.items()}
    time.sleep(seconds)
    cpu = Row(f"idle: processor over {seconds:.0f} s, of one core", 1.0, "%")
    memory = Row("idle: memory of the daemon (PSS, all its processes)", 120.0, "MB")
    resident = Row("idle: the same as RSS", None, "MB")
    for name, pids in groups.items():
        cpu.add(name, 100 * (sum(map(cpu_seconds, pids)) - before[name]) / seconds)
        memory.add(name, sum(map(pss, pids)))
        resident.add(name, sum(map(rss, pids)))
    memory.note = "a young daemon"
    memory.reference = "the real control plane and node 606 MB, k3s 430 MB"
    yield from (memory, resident, cpu)


def used(bed: Bed) -> Iterator[Row]:
    """Memory of the daemon again, after everything that was measured before."""
    assert bed.kestrel
    row = Row("memory of the daemon after all of the above (PSS)", None, "MB")
    row.add("kestrel", sum(map(pss, _family(daemon_pid()))))
    yield row


def _named(name: str) -> int:
    return int(subprocess.run(["pgrep", "-o", "-x", name], capture_output=True, check=True).stdout.split()[0])


def _family(pid: int) -> list[int]:
    """A process and its direct children."""
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [pid, *map(int, done.stdout.split())]
