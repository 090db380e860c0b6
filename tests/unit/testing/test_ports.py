"""Ports for tests: two that were asked for are two, though nobody listens on the first yet."""

import socket

import pytest

from kestrel.testing import instance
from kestrel.testing.instance import free_port


def test_no_port_is_given_twice() -> None:
    assert len({free_port() for _ in range(1000)}) == 1000


def test_a_port_that_somebody_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken, free = server.getsockname()[1], free_port()
        monkeypatch.setattr(instance, "_PORTS", iter([taken, free]))
        assert free_port() == free
