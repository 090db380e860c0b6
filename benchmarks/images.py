"""Images: pulled from a registry on this machine, and served to a crowd."""

import json
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import image
from benchmarks.bed import REGISTRY_PORT, Bed, daemon_pid, push
from benchmarks.measure import Row, command, output, rounds

ACCEPT = "application/vnd.oci.image.manifest.v1+json"


def pull(bed: Bed) -> Iterator[Row]:
    """From nothing to an image that can run, out of the same docker-registry."""
    layout = bed.place("large")
    compressed = image.write(layout, image.large_layers())
    name = push(layout, f"{bed.registry}/large:1")
    kestrel = str(bed.kestrel)
    programs: dict[str, Callable[[], float]] = {
        "kestrel": _pull([kestrel, "pull", "--quiet", name], [[kestrel, "rmi", name], [kestrel, "prune"]]),
        "docker": _pull([*bed.docker, "pull", "--quiet", name], [[*bed.docker, "rmi", name]]),
        "podman": _pull([*bed.podman, "pull", "--quiet", "--tls-verify=false", name], [[*bed.podman, "rmi", name]]),
    }
    title = f"pull of {compressed / 1e6:.0f} MB gzip ({image.SIZE / 1e6:.0f} MB, {image.FILES:,} files) to runnable"
    yield rounds(Row(title, 0.6, "s"), programs, bed.count(5), pause=0.2)


def _pull(argv: list[str], forget: list[list[str]]) -> Callable[[], float]:
    def once() -> float:
        os.sync()  # nobody's writing is on somebody else's clock
        took = command(argv)
        for words in forget:
            command(words)
        return took

    return once


def manifests(bed: Bed) -> Iterator[Row]:
    """A manifest, over and over, from a registry that has one core; the one who asks has the others."""
    own = f"127.0.0.1:{REGISTRY_PORT}"
    kestrel_image, peer_image = bed.own_image(), bed.image
    command([str(bed.kestrel), "tag", kestrel_image, f"{own}/bench:1"])
    command([str(bed.kestrel), "push", "--quiet", f"{own}/bench:1"])
    peer = peer_image.partition("/")[0]
    pids = {"kestrel": daemon_pid(), "docker-registry": bed.registry_process.pid}
    urls = {"kestrel": f"http://{own}/v2/bench/manifests/1", "docker-registry": f"http://{peer}/v2/bench/manifests/1"}
    if bed.zot:
        command(["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false",
                 f"docker://{peer_image}", f"docker://{bed.zot}/bench:1"])  # fmt: skip
        pids["zot"], urls["zot"] = bed.zot_process.pid, f"http://{bed.zot}/v2/bench/manifests/1"
    for pid in pids.values():
        _pin(pid, [0])
    try:
        programs = {name: partial(_rate, url, bed) for name, url in urls.items()}
        yield rounds(Row("manifest GET by tag, on one core", 15_000, "/s"), programs, bed.count(5))
    finally:
        _pin(pids["kestrel"], sorted(os.sched_getaffinity(0)))


def _pin(pid: int, cores: list[int]) -> None:
    command(["taskset", "--all-tasks", "--cpu-list", "--pid", ",".join(map(str, cores)), str(pid)])


def _rate(url: str, bed: Bed) -> float:
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request) as answer:
        json.load(answer)  # it is what it should be
    script = 'done = function(s) io.write(string.format("%f %d", s.requests / s.duration * 1e6, s.errors.status)) end'
    with tempfile.NamedTemporaryFile("w", suffix=".lua", dir=bed.directory) as file:
        Path(file.name).write_text(script)
        seconds = 1 if bed.quick else 3
        argv = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", file.name, "-H", f"Accept: {ACCEPT}", url]
        text = output(["taskset", "--cpu-list", "1", *argv] if (os.cpu_count() or 1) > 1 else argv)
    rate, errors = text.splitlines()[-1].split()
    if int(errors):
        raise RuntimeError(f"{errors} answers of {url} were errors")
    return float(rate)
