"""Network devices of the host in a container (`linux.netDevices`): what they keep, and when none is moved."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.root

KINDS = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
SHOW = ("sh", "-c", "ip link; ip addr; exec sleep 0")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def is_here(name: str) -> bool:
    return os.path.exists(f"/sys/class/net/{name}")


@pytest.fixture
def device() -> Iterator[str]:
    """One end of a veth pair with addresses, an MTU and a hardware address; its other end is up."""
    name = f"ktest{os.getpid()}"
    ip("link", "add", name, "mtu", "1450", "address", "02:00:00:00:00:07", "type", "veth", "peer", f"{name}p")
    ip("link", "set", f"{name}p", "up")
    ip("addr", "add", "203.0.113.7/29", "broadcast", "203.0.113.6", "dev", name)
    ip("addr", "add", "203.0.113.17/29", "dev", name)
    ip("addr", "add", "203.0.113.33/29", "scope", "link", "dev", name)
    ip("addr", "add", "2001:db8::7/64", "dev", name)
    yield name
    subprocess.run(["ip", "link", "delete", f"{name}p"], capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"ktest-net-{os.getpid()}"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


def test_a_device_keeps_what_it_was_given_for_good_and_is_up(runtime: Any, device: str) -> None:
    runtime.spec(*SHOW, linux={"netDevices": {device: {"name": "inner"}}})
    shown = runtime.ok("run", "--bundle", str(runtime.bundle), "one")
    for kept in (": inner@", "mtu 1450", "02:00:00:00:00:07", "203.0.113.7/29 brd 203.0.113.6 scope", ",UP"):
        assert kept in shown
    for kept in ("203.0.113.17/29 scope global", "2001:db8::7/64 scope global"):
        assert kept in shown
    assert "203.0.113.33" not in shown
    assert device not in shown
    assert not is_here(device)


def test_a_container_with_users_of_its_own_has_the_device_under_its_name(runtime: Any, device: str) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    users = {"uidMappings": maps, "gidMappings": maps, "namespaces": [*KINDS, {"type": "user"}]}
    runtime.spec(*SHOW, linux={"netDevices": {device: {}}, **users})
    subprocess.run(["chown", "-hR", "100000:100000", str(runtime.bundle / "rootfs")], check=True)
    assert f": {device}@" in runtime.ok("run", "--bundle", str(runtime.bundle), "one")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"ktest-nothing": {}}, "there is no network device ktest-nothing"),
        ({"lo": {}}, "network has a device lo already"),
        ({"lo": {"name": "outer"}}, "lo: moving"),
    ],
)
def test_what_cannot_be_moved_is_named(runtime: Any, device: str, more: dict[str, Any], said: str) -> None:
    was = ip("addr", "show", device)
    runtime.spec("true", linux={"netDevices": {**more, device: {}}})
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert done.returncode == 1
    assert said in done.stderr
    assert ip("addr", "show", device) == was
    assert "UP" in ip("link", "show", "lo").partition("\n")[0]


def test_a_device_moves_into_a_namespace_that_exists_and_stays_there(runtime: Any, device: str, namespace: str) -> None:
    joined = [entry for entry in KINDS if entry["type"] != "network"]
    joined.append({"type": "network", "path": f"/run/netns/{namespace}"})
    ip("-n", namespace, "link", "add", "net0", "type", "bridge")
    runtime.spec("true", linux={"netDevices": {device: {"name": "net0"}}, "namespaces": joined})
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert "has a device net0 already" in done.stderr
    assert is_here(device)
    runtime.spec("true", linux={"netDevices": {device: {"name": "net%d"}}, "namespaces": joined})
    runtime.ok("run", "--bundle", str(runtime.bundle), "two")
    assert "203.0.113.7/29" in ip("-n", namespace, "addr", "show", "net1")


def test_a_device_of_the_namespace_that_is_joined_is_not_taken_from_itself(
    runtime: Any, device: str, namespace: str
) -> None:
    joined = [entry for entry in KINDS if entry["type"] != "network"]
    runtime.spec(
        "true",
        linux={
            "netDevices": {device: {"name": "other"}},
            "namespaces": [*joined, {"type": "network", "path": f"/proc/{os.getpid()}/ns/net"}],
        },
    )
    done = runtime("run", "--bundle", str(runtime.bundle), "one")
    assert "is in the container's network namespace already" in done.stderr
    assert is_here(device)


def test_callers_can_ask_whether_devices_are_moved(runtime: Any) -> None:
    assert json.loads(runtime.ok("features"))["linux"]["netDevices"] == {"enabled": True}
