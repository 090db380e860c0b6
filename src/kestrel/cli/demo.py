"""`kestrel demo`: the whole way once, from a Dockerfile to a Pod's logs, and what happened, in a few lines.

Everything here goes through the doors that people use: the build and push verbs, and the Kubernetes API.
"""

import os
import time

from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.base.units import print_duration
from kestrel.cli.console import Progress, print_json, say
from kestrel.cli.remote import call, running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.kube import Kubernetes
    from kestrel.cli.options import Parsed

HUB_BASE = "python:3.12-slim"
HUB_MINIMAL = "debian:stable-slim"
OWN_BASE = "kestrel/python:bootstrap"
MINIMAL_BASE = "kestrel/minimal:bootstrap"
ENDED = ("Succeeded", "Failed")


def demo(parsed: "Parsed") -> int:
    """Run the demonstration on `examples/hello`, or on a directory like it."""
    directory = os.path.abspath(parsed.words[0] if parsed.words else _example())
    if not os.path.exists(os.path.join(directory, "Dockerfile")):
        raise InvalidArgument(f"there is no Dockerfile in {directory}", hint="give a directory like examples/hello")
    tour = _Tour()
    tour.step("up", _up)
    state = call("status")
    base = parsed.base or tour.step("base", _base)["name"]
    minimal = tour.step("minimal base", lambda: _minimal(base))["name"]
    prefix = f"{state['registry']['host']}/demo"
    bases = [f"BASE={base}", f"MINIMAL={minimal}"]
    for name, file in (("hello", "Dockerfile"), ("hello-minimal", "Dockerfile.multistage")):
        if os.path.exists(os.path.join(directory, file)):
            reference = f"{prefix}/{name}:1"
            tour.step(f"build {name}", lambda r=reference, f=file: _build(directory, f, r, bases))
            tour.step(f"push {name}", lambda r=reference: _push(r))
    pod = tour.step("pod", lambda: _pod(state, directory, f"{prefix}/hello:1"))
    if parsed.json:
        print_json({"steps": tour.steps})
    else:
        _closing(tour, state, pod)
    return 0 if pod["phase"] == "Succeeded" else 1


class _Tour:
    """The steps taken, each with what it did and how long it took."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def step(self, name: str, action: "Any") -> "dict[str, Any]":
        say(f"── {name}")
        began = time.monotonic()
        done: dict[str, Any] = {"step": name, **action()}
        done["seconds"] = round(time.monotonic() - began, 3)
        self.steps.append(done)
        return done


def _example() -> str:
    """The example that comes with the source tree, found from where this file is."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.normpath(os.path.join(here, "..", "..", "..", "examples", "hello"))


def _up() -> "dict[str, Any]":
    fresh = not running()
    call("status")
    return {"what": "started" if fresh else "ran already"}


def _base() -> "dict[str, Any]":
    """Take the base from a registry if one can be reached, else make one; say which."""
    for name in (HUB_BASE, OWN_BASE):
        if _is_here(name):
            return {"name": name, "what": f"{name}, here already"}
    try:
        call("pull", {"name": HUB_BASE}, Progress())
        return {"name": HUB_BASE, "what": f"{HUB_BASE}, pulled"}
    except KestrelError as error:
        say(f"{error.message}; making a base image out of Debian packages instead")
    return _make(OWN_BASE, "python")


def _minimal(base: str) -> "dict[str, Any]":
    """Take the base of the second example from where the first one's came."""
    if base != OWN_BASE:
        return {"name": HUB_MINIMAL, "what": f"{HUB_MINIMAL}, pulled by the build"}
    if _is_here(MINIMAL_BASE):
        return {"name": MINIMAL_BASE, "what": f"{MINIMAL_BASE}, here already"}
    return _make(MINIMAL_BASE, "minimal")


def _is_here(name: str) -> bool:
    try:
        call("images", {"name": name})
    except NotFound:
        return False
    return True


def _make(name: str, variant: str) -> "dict[str, Any]":
    made = call("bootstrap", {"name": name, "variant": variant, "include": []}, Progress())
    return {"name": name, "what": f"{name}, made of {made['packages']} Debian packages"}


def _build(directory: str, file: str, reference: str, bases: "list[str]") -> "dict[str, Any]":
    from kestrel.cli.build import show_steps

    request = {
        "context": directory,
        "dockerfile": os.path.join(directory, file),
        "tags": [reference],
        "build_args": bases,
    }
    result = show_steps(request)
    reused = sum(step["cached"] for step in result["steps"])
    return {"what": f"{len(result['steps'])} steps, {reused} reused", "image": result["image_id"]}


def _push(reference: str) -> "dict[str, Any]":
    events: dict[str, str] = {}
    sent = call("push", {"name": reference}, lambda event: events.__setitem__(event["id"], event["status"]))
    there = sum("already" in status or "linked" in status for status in events.values())
    blobs = sum(not status.startswith("digest") for status in events.values())
    return {"what": f"{sent['name']}, {blobs} blobs, {there} of them there already", "digest": sent["digest"]}


def _pod(state: "dict[str, Any]", directory: str, reference: str) -> "dict[str, Any]":
    from kestrel.cli.kube import Kubernetes

    cluster = Kubernetes(state["kubernetes"])
    manifest = _manifest(directory, reference)
    name = manifest["metadata"]["name"]
    pods = "/api/v1/namespaces/default/pods"
    _delete(cluster, f"{pods}/{name}")
    began = time.monotonic()
    cluster.request("POST", pods, manifest)
    pod = _until(cluster, pods, name, lambda p: p["status"].get("phase") in ("Running", *ENDED))
    started = time.monotonic() - began
    say(f"pod/{name} runs after {print_duration(started)}; its logs:")
    for line in cluster.lines(f"{pods}/{name}/log?follow=true"):
        say("   │ " + line.decode(errors="replace").rstrip("\n"))
    pod = _until(cluster, pods, name, lambda p: p["status"].get("phase") in ENDED)
    phase = pod["status"]["phase"]
    return {"what": f"pod/{name} ran after {print_duration(started)} and {phase.lower()}", "phase": phase, "pod": name}


def _manifest(directory: str, reference: str) -> "dict[str, Any]":
    """Read pod.yaml and put the image that was just pushed into it."""
    import yaml

    with open(os.path.join(directory, "pod.yaml")) as file:
        manifest: dict[str, Any] = yaml.safe_load(file)
    manifest["spec"]["containers"][0]["image"] = reference
    return manifest


def _delete(cluster: "Kubernetes", path: str) -> None:
    try:
        cluster.request("DELETE", path, {"gracePeriodSeconds": 0})
        while True:
            cluster.request("GET", path)
            time.sleep(0.02)
    except NotFound:
        pass


def _until(cluster: "Kubernetes", pods: str, name: str, wanted: "Any") -> "dict[str, Any]":
    """Watch a pod until it is as wanted, or can never be."""
    import json

    for line in cluster.lines(f"{pods}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds=120"):
        event = json.loads(line)
        pod: dict[str, Any] = event["object"]
        if event["type"] == "ERROR":
            raise NotFound(pod.get("message", "the watch failed"))
        _give_up_early(pod)
        if wanted(pod):
            return pod
    raise NotFound(f"pod {name} did not get there within two minutes", hint=f"see `kubectl describe pod {name}`")


def _give_up_early(pod: "dict[str, Any]") -> None:
    for status in pod["status"].get("containerStatuses", []):
        waiting = status["state"].get("waiting", {})
        if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"):
            raise NotFound(f"the pod cannot start: {waiting['reason']}: {waiting.get('message', '')}")


def _closing(tour: _Tour, state: "dict[str, Any]", pod: "dict[str, Any]") -> None:
    width = max(len(step["step"]) for step in tour.steps)
    print("what happened:")
    for step in tour.steps:
        print(f"  {step['step']:<{width}}  {print_duration(step['seconds']):>7}  {step['what']}")
    total = sum(step["seconds"] for step in tour.steps)
    print(f"  {'in all':<{width}}  {print_duration(total):>7}")
    print("the platform goes on running. next:")
    kubeconfig = state["kubernetes"]["kubeconfig"]
    default = os.path.expanduser("~/.kube/config")
    prefix = "" if kubeconfig == default else f"KUBECONFIG={kubeconfig} "
    print(f"  {prefix}kubectl get pods -o wide")
    print(f"  {prefix}kubectl logs {pod['pod']}")
    print("  kestrel run -it --rm " + f"{state['registry']['host']}/demo/hello:1 sh")
    print("  kestrel status; kestrel df; kestrel down --all")
