"""Network devices of the host that become a container's (config-linux.md, "Network Devices").

A device is moved with what it has: name (or a new one), MTU, hardware address, and the addresses it was given for good;
the kernel flushes those on the way, so they are given again. It stays in the namespace when the container ends: what
becomes of it is the kernel's to say, or whoever the namespace belongs to.

Imported only for a container that has some.
"""

from __future__ import annotations

import fcntl

from kestrel.base.errors import AlreadyExists, InvalidArgument, NotFound
from kestrel.base.values import dataclass
from kestrel.linux import abi, netlink, syscalls
from kestrel.linux.mounts import opened
from kestrel.runtime.place import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from kestrel.runtime.place import Place


@dataclass(frozen=True, slots=True)
class MoveDevices(Operation):
    """Move devices, as (name outside, name inside), from the network of the process that makes the container."""

    devices: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Say it."""
        return "take network devices from the host: " + ", ".join(
            outside if inside == outside else f"{outside} as {inside}" for outside, inside in self.devices
        )

    def execute(self, place: Place) -> None:
        """Look at all of them first, so that none is moved when one cannot be."""
        assert place.channel is not None
        with (
            netlink.Socket() as here,
            opened(_namespace(here.fileno())) as own,
            _of_creator(place.channel.fileno(), own) as outside,
        ):
            found = [_checked(name, inside, outside, here.links()) for name, inside in self.devices]
            for device, (_, inside) in zip(found, self.devices, strict=True):
                _move(device, inside, outside, here, own)


def parse(devices: Mapping[str, Any]) -> MoveDevices:
    """Return the spec's `linux.netDevices` as an operation."""
    return MoveDevices(tuple((name, entry.get("name") or name) for name, entry in devices.items()))


def _namespace(fd: int) -> int:
    """Return a descriptor of the network namespace that a socket was made in."""
    return fcntl.ioctl(fd, abi.SIOCGSKNS)


def _of_creator(channel: int, own: int) -> netlink.Socket:
    """Open a socket in the network of whoever made the channel.

    By a visit there, without a thread: the user namespace is yet to be entered, and a process with more than one thread
    may not do that (`man 2 setns`).
    """
    with opened(_namespace(channel)) as other:
        syscalls.setns(other, abi.CLONE_NEWNET)
        try:
            return netlink.Socket()
        finally:
            syscalls.setns(own, abi.CLONE_NEWNET)


def _checked(name: str, inside: str, outside: netlink.Socket, present: list[netlink.Link]) -> netlink.Link:
    device = outside.link(name)
    if device is None:
        raise NotFound(f"linux.netDevices: there is no network device {name}")
    if device in present:
        raise InvalidArgument(f"linux.netDevices: {name} is in the container's network namespace already")
    if any(link.name == inside for link in present):
        raise AlreadyExists(
            f"linux.netDevices: the container's network has a device {inside} already",
            hint="let the name end in %d, and the kernel finds a number that is free",
        )
    return device


def _move(device: netlink.Link, inside: str, outside: netlink.Socket, here: netlink.Socket, own: int) -> None:
    before = {link.index for link in here.links()}
    addresses = outside.lasting(device.index)
    try:
        outside.run(netlink.move_link(device.index, own, inside))
        # Its index and, with a template, its name are of the kernel's choosing.
        index = next(link.index for link in here.links() if link.index not in before and link.mac == device.mac)
        here.run(*(netlink.give_again(address, index) for address in addresses), netlink.set_up(index))
    except netlink.NetlinkError as error:
        raise InvalidArgument(f"linux.netDevices: {device.name}: {error}") from error
