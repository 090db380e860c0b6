"""The spec's `linux.resources` as limits and device rules for `linux.cgroups`. Pure."""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.linux.cgroups import DeviceRule, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT_DEVICES = (
    *(DeviceRule(allow=True, kind="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    DeviceRule(allow=True, kind="c", major=5, minor=0),
    DeviceRule(allow=True, kind="c", major=5, minor=2),
    DeviceRule(allow=True, kind="c", major=136),
    DeviceRule(allow=True, kind="c", access="m"),
    DeviceRule(allow=True, kind="b", access="m"),
)
"""What every container may use: the default devices, its terminals; making any node is harmless, using it is not."""


def limits(resources: Mapping[str, Any]) -> Limits:
    """Return the limits. Raises InvalidArgument for what lacks a member, or asks for what Linux does not have."""
    try:
        return _limits(resources)
    except KeyError as error:
        raise InvalidArgument(f"linux.resources is not of the specification's form: {error} is missing") from error


def _limits(resources: Mapping[str, Any]) -> Limits:
    """Return the limits.

    The limits of kernel memory (`memory.kernel`, `kernelTCP`) are left out, as by runc: Linux counts that memory with
    the rest and no longer limits it alone, and clients still send them.
    """
    memory = resources.get("memory") or {}
    cpu = resources.get("cpu") or {}
    network = resources.get("network") or {}
    return Limits(
        memory=memory.get("limit") or None,
        reservation=memory.get("reservation") or None,
        swap=memory.get("swap") or None,
        swappiness=memory.get("swappiness"),
        oom_kill_disable=bool(memory.get("disableOOMKiller")),
        shares=cpu.get("shares") or None,
        quota=cpu.get("quota") or None,
        period=cpu.get("period") or None,
        realtime_runtime=cpu.get("realtimeRuntime") or None,
        realtime_period=cpu.get("realtimePeriod") or None,
        burst=cpu.get("burst"),
        idle=cpu.get("idle"),
        cpus=cpu.get("cpus") or "",
        mems=cpu.get("mems") or "",
        pids=_pids((resources.get("pids") or {}).get("limit")),
        hugepages=tuple((entry["pageSize"], entry["limit"]) for entry in resources.get("hugepageLimits") or ()),
        rdma=tuple(_rdma(device, entry) for device, entry in (resources.get("rdma") or {}).items()),
        net_class=network.get("classID"),
        net_priorities=tuple(f"{entry['name']} {entry['priority']}" for entry in network.get("priorities") or ()),
        unified=dict(resources.get("unified") or {}),
        **_block(resources.get("blockIO") or {}),
    )


def _rdma(device: str, entry: Mapping[str, int]) -> str:
    names = {"hcaHandles": "hca_handle", "hcaObjects": "hca_object"}
    return " ".join((device, *(f"{names[name]}={entry[name]}" for name in names if entry.get(name) is not None)))


def _pids(limit: int | None) -> int | None:
    """A group holds one process at least: 0, which the specification allows, is what 1 is, and the kernel says so."""
    return 1 if limit == 0 else limit


def _block(spec: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        "throttleReadBpsDevice": "read_bps_device",
        "throttleWriteBpsDevice": "write_bps_device",
        "throttleReadIOPSDevice": "read_iops_device",
        "throttleWriteIOPSDevice": "write_iops_device",
    }
    throttles = [
        (file, f"{entry['major']}:{entry['minor']} {entry['rate']}")
        for name, file in names.items()
        for entry in spec.get(name) or ()
    ]
    devices = spec.get("weightDevice") or ()
    if any(each.get("leafWeight") for each in (spec, *devices)):
        raise InvalidArgument("linux.resources.blockIO.leafWeight cannot be had: Linux 5.0 took its scheduler away")
    weights = [f"{entry['major']}:{entry['minor']} {entry['weight']}" for entry in devices]
    return {"io_weight": spec.get("weight") or None, "io_weights": tuple(weights), "throttles": tuple(throttles)}


def device_rules(resources: Mapping[str, Any]) -> tuple[DeviceRule, ...] | None:
    """Return the device rules: the spec's, then the defaults; None when all is allowed.

    A device in `linux.devices` is made, not allowed: that takes a rule of its own (config-linux.md).
    """
    entries = resources.get("devices") or ()
    rules = [_rule(entry) for entry in entries]
    if rules and rules[-1].allow and rules[-1].kind == "a" and rules[-1].major is None and rules[-1].minor is None:
        return None
    return (*rules, *DEFAULT_DEVICES)


def _rule(entry: Mapping[str, Any]) -> DeviceRule:
    kind = entry.get("type") or "a"
    access = entry.get("access") or "rwm"
    access = "rwm" if "a" in access else access
    if kind not in ("a", "b", "c", "u") or set(access) - set("rwm"):
        raise InvalidArgument(f"device rule {dict(entry)!r} has an unknown type or access")

    def number(name: str) -> int | None:
        value = entry.get(name)
        return None if value is None or value < 0 else int(value)

    return DeviceRule(
        allow=bool(entry.get("allow")),
        kind=kind.replace("u", "c"),
        major=number("major"),
        minor=number("minor"),
        access=access,
    )
