import os
import socket
from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition, PermissionDenied
from kestrel.network import host


def test_without_the_right_it_is_said_what_that_costs(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nCapEff:\t000001ffffffefff\n")
    with pytest.raises(PermissionDenied, match=r"CAP_NET_ADMIN.*bridge networks cannot be made"):
        host.require_rights(tmp_path / "status")
    (tmp_path / "status").write_text("CapEff:\t0000000000001000\n")
    host.require_rights(tmp_path / "status")


def test_the_hosts_resolvers_are_read_as_the_c_library_does(tmp_path: Path) -> None:
    text = "# nameserver 9.9.9.9\nnameserver 192.0.2.1\nnameserver bad\n nameserver ::1\nnameserver 192.0.2.2\n"
    (tmp_path / "resolv.conf").write_text(text + "nameserver 192.0.2.3\n")
    assert host.resolvers(tmp_path / "resolv.conf") == ["192.0.2.1", "::1", "192.0.2.2"]
    assert host.resolvers(tmp_path / "nothing") == []


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_owner_of_a_port_is_found(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            taken.listen()
        assert f"(pid {os.getpid()})" in host.port_owner(taken.getsockname()[1], protocol)


def test_a_port_nobody_has_has_no_owner() -> None:
    assert host.port_owner(1, "tcp") == ""


def test_a_sysctl_that_cannot_be_set_is_named() -> None:
    with pytest.raises(FailedPrecondition, match=r"net\.kestrel\.nothing = 1"):
        host.write_sysctl("net.kestrel.nothing", "1")
