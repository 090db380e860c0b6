"""The Kubernetes API and the kubelet behind it.

The peers' numbers are those of the design: they need a cluster of their own.
"""

import base64
import http.client
import json
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bed import Bed
from benchmarks.measure import Row

PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
CROWD = 5_000


class Api:
    """One kept-alive connection, as the administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        directory = kubeconfig.parent
        files = {}
        for name in ("client-certificate", "client-key"):
            path = directory / name
            path.write_bytes(_material(user, name))
            files[name] = str(path)
        self.tls = ssl.create_default_context(cadata=_material(cluster, "certificate-authority").decode())
        self.tls.load_cert_chain(files["client-certificate"], files["client-key"])
        self.host = cluster["server"].removeprefix("https://")
        self._connection = self.connect()

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, context=self.tls, timeout=60)

    def __call__(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> bytes:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Accept": accept, "Content-Type": "application/json"}
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
        return text


def _material(entry: dict[str, str], name: str) -> bytes:
    inline = entry.get(f"{name}-data")
    return base64.b64decode(inline) if inline else Path(entry[name]).read_bytes()


class Watch:
    """A watch of one Pod that is there before the Pod is."""

    def __init__(self, api: Api, name: str) -> None:
        self._connection = api.connect()
        self._connection.request("GET", f"{PODS}?watch=true&fieldSelector=metadata.name%3D{name}")
        self._answer = self._connection.getresponse()

    def until_running(self) -> None:
        for line in self._answer:
            pod = json.loads(line)["object"]
            phase = pod.get("status", {}).get("phase")
            if phase == "Running":
                return
            if phase in ("Failed", "Succeeded"):
                raise RuntimeError(f"the pod ended: {json.dumps(pod['status'])[:800]}")
        raise RuntimeError("the watch ended before the pod ran")

    def close(self) -> None:
        self._connection.close()


def running(bed: Bed) -> Iterator[Row]:
    """From the request to a watch that says Running, for one Pod whose image is here."""
    image = bed.own_image()
    api = Api(Path(os.environ["KESTREL_KUBECONFIG"]))
    posted = Row("POST of a Pod to Running, image present", 60.0, reference="kubelet + containerd 980 ms")
    applied = Row("`kubectl apply` from the shell to Running", 150.0)
    for number in range(bed.count(15) + 2):
        for row, how in ((posted, _post), (applied, _apply)):
            name = f"pod{number}-{'post' if how is _post else 'apply'}"
            took = _one_pod(bed, api, name, image, how)
            if number >= 2:
                row.add("kestrel", took)
    yield posted
    yield applied


def _one_pod(bed: Bed, api: Api, name: str, image: str, how: Any) -> float:
    watch = Watch(api, name)
    began = time.perf_counter()
    try:
        how(bed, api, _pod(name, image))
        watch.until_running()
        return time.perf_counter() - began
    finally:
        watch.close()
        api("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
        time.sleep(0.3)


def _post(_bed: Bed, api: Api, pod: dict[str, Any]) -> None:
    api("POST", PODS, pod)


def _apply(bed: Bed, _api: Api, pod: dict[str, Any]) -> None:
    argv = ["kubectl", f"--kubeconfig={os.environ['KESTREL_KUBECONFIG']}", "apply", "-f", "-"]
    environment = {**os.environ, "HOME": str(bed.directory)}  # where kubectl keeps what it has discovered
    done = subprocess.run(argv, input=json.dumps(pod).encode(), capture_output=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"kubectl apply: {done.stderr.decode()}")


def _pod(name: str, image: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


def crowd(bed: Bed) -> Iterator[Row]:
    """5,000 Pods that nobody schedules: created one after the other, then listed."""
    image = bed.own_image()
    api = Api(Path(os.environ["KESTREL_KUBECONFIG"]))
    number = CROWD // 10 if bed.quick else CROWD
    create = Row(f"{number:,} Pods created one by one", 450, "/s", reference="kube-apiserver + etcd 154/s")
    try:
        for batch in range(10):
            began = time.perf_counter()
            for index in range(number // 10):
                api("POST", PODS, _pod(f"crowd{batch}-{index}", image, schedulerName="nobody"))
            create.add("kestrel", number / 10 / (time.perf_counter() - began))
        yield create
        for title, accept, budget, peer in (
            ("JSON", "application/json", 50.0, "161 ms"),
            ("Table", TABLE, 70.0, "115 ms"),
        ):
            row = Row(f"list of {number:,} Pods as {title}", budget, reference=f"kube-apiserver + etcd {peer}")
            for _ in range(bed.count(10) + 1):
                began = time.perf_counter()
                data = api("GET", PODS, accept=accept)
                row.add("kestrel", time.perf_counter() - began)
            answer = json.loads(data)
            if len(answer.get("items") or answer["rows"]) != number:
                raise RuntimeError(f"the list has not {number} entries")
            yield row
    finally:
        api("DELETE", f"{PODS}?gracePeriodSeconds=0")
