"""The operations that set what a namespace knows about itself: its names, its kernel settings, its loopback device."""

from __future__ import annotations

import fcntl
import os
import struct

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass
from kestrel.linux import abi, mounts, sockets, syscalls
from kestrel.linux.mounts import opened
from kestrel.runtime import validate
from kestrel.runtime.place import Operation, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class SetSysctl(Operation):
    """Write one kernel setting of the container's namespaces."""

    name: str
    value: str

    def describe(self) -> str:
        """Say it."""
        return f"set {self.name} to {self.value}"

    def execute(self, place: Place) -> None:  # noqa: ARG002 - the same for every operation
        """Write through a procfs of our own, which nothing of the container can cover (CVE-2025-52881)."""
        write_sysctls({self.name: self.value})


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write sysctls by their names in the caller's namespaces; the names were checked before (`validate`)."""
    if not values:
        return
    with opened(mounts.filesystem("proc")) as proc:
        for name, value in values.items():
            _write(proc, name, value)


def _write(proc: int, name: str, value: str) -> None:
    path = validate.dotted(name).translate(validate.SWAPPED)
    resolve = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV
    try:
        fd = syscalls.openat2(proc, "sys/" + path, os.O_WRONLY, resolve)
    except FileNotFoundError:
        raise InvalidArgument(f"sysctl {name!r} does not exist on this kernel") from None
    with opened(fd):
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise InvalidArgument(f"sysctl {name}: the kernel refuses {value!r}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class RaiseLoopback(Operation):
    """Bring up `lo` of a new network namespace, which has it, but down (`man 7 netdevice`)."""

    def describe(self) -> str:
        """Say it."""
        return "bring up the loopback device"

    def execute(self, place: Place) -> None:  # noqa: ARG002 - the same for every operation
        """ioctl(2) on any socket of the namespace."""
        with sockets.Socket(sockets.AF_INET, sockets.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, abi.SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", abi.IFF_UP))


@dataclass(frozen=True, slots=True)
class SetNames(Operation):
    """Set the host and domain name of the container's UTS namespace."""

    hostname: str = ""
    domainname: str = ""

    def describe(self) -> str:
        """Say it."""
        return f"set the host name to {self.hostname or self.domainname}"

    def execute(self, place: Place) -> None:  # noqa: ARG002 - the same for every operation
        """sethostname(2), setdomainname(2)."""
        if self.hostname:
            syscalls.sethostname(self.hostname)
        if self.domainname:
            syscalls.setdomainname(self.domainname)
