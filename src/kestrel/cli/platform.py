"""up, down, status, df, version."""

import os
import select

from kestrel.base.units import print_duration, print_size
from kestrel.cli.console import print_json, say, table
from kestrel.cli.remote import call, running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.cli.options import Parsed


CONTENTS = {
    "blobs": "images as registries know them: manifests, configurations, layers",
    "layers": "layers in the form that is mounted, each once",
    "snapshots": "what containers wrote",
    "containers": "logs and records of containers",
    "pods": "logs of pods",
    "volumes": "claims and named volumes",
    "kubelet": "volumes of pods that live as long as the pod",
    "build": "cache mounts and downloads of builds",
    "bootstrap": "Debian packages, verified, for base images",
    "uploads": "pushes and pulls under way",
    "ingest": "blobs being written",
    "trash": "being removed",
    "kubernetes": "authority, certificates, kubeconfig",
    "kestrel.db": "everything that has a name",
    "kestrel.db-wal": "its latest changes",
}
"""What is kept where below the data root."""


def up(parsed: "Parsed") -> int:
    """`kestrel up`: start what does not run, and say how to reach it."""
    import time

    began = time.monotonic()
    fresh = not running()
    state = call("status")
    if parsed.json:
        print_json(state)
        return 0
    took = f" after {print_duration(time.monotonic() - began)}" if fresh else " already"
    say(f"kestrel is up{took}")
    _print_status(state)
    return 0


def down(parsed: "Parsed") -> int:
    """`kestrel down`: stop the daemon, and with --all leave nothing behind."""
    if not running() and not parsed.all:
        say("kestrel is not running")
        return 0
    daemon = os.pidfd_open(call("status")["pid"])
    call("down", {"all": parsed.all})
    select.select([daemon], [], [])  # readable when the process has ended (man 2 pidfd_open)
    os.close(daemon)
    say("kestrel is down; nothing of it runs" if parsed.all else "the daemon is down; containers go on")
    return 0


def status(parsed: "Parsed") -> int:
    """`kestrel status`."""
    if not running():
        if parsed.json:
            print_json({"running": False})
        else:
            print("kestrel is not running; any command starts it, or `kestrel up`")
        return 3  # as `systemctl status`: the program is not running (LSB)
    state = call("status")
    if parsed.json:
        print_json(state)
    else:
        _print_status(state)
    return 0


def _print_status(state: "dict[str, Any]") -> None:
    rows = [
        ("kubernetes", f"{state['kubernetes']['url']}  (kubeconfig {state['kubernetes']['kubeconfig']})"),
        ("registry", f"{state['registry']['url']}"),
        ("data", state["root"]),
        ("daemon", f"pid {state['pid']}, log {state['log']}"),
        ("containers", f"{state['containers']['running']} running, {state['containers']['all']} in all"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    for lack in state["lacks"]:
        print(f"{'note':<{width}}  {lack}")


def df(parsed: "Parsed") -> int:
    """`kestrel df`: what takes how much room, to the byte."""
    usage = call("df")
    if parsed.json:
        print_json(usage)
        return 0
    rows = [
        (row["what"], str(row["count"]), print_size(row["bytes"]), f"{row['bytes']:,}", CONTENTS.get(row["what"], ""))
        for row in usage["rows"]
    ]
    rows.append(("total", "", print_size(usage["total"]), f"{usage['total']:,}", ""))
    print(table(("WHAT", "FILES", "SIZE", "BYTES", "IN WORDS"), rows))
    return 0


def version(parsed: "Parsed") -> int:
    """`kestrel version`."""
    from kestrel import __version__

    if parsed.json:
        print_json({"version": __version__})
    else:
        print(f"kestrel {__version__}")
    return 0
