"""Who gets users of their own, and what stands against it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.engine import users
from kestrel.engine.model import ContainerConfig, Sandbox, SandboxConfig, SandboxState, Security
from kestrel.engine.users import Mapper

BOX = SandboxConfig(name="box")


def refused(*, asked: bool = False, image_user: str = "", **security: object) -> str:
    config = ContainerConfig(name="c", image="i", security=Security(**security))  # type: ignore[arg-type] # by name
    return asyncio.run(users.refusal(Mapper(), config, image_user, asked=asked))


def test_whoever_says_nothing_has_users_of_its_own() -> None:
    assert refused() == ""
    assert refused(add_capabilities=("NET_ADMIN", "CAP_SYS_PTRACE"), user="1000:1000", groups=(5,)) == ""
    assert users.of_sandbox(Mapper(), BOX, "box", frozenset()) > 0


@pytest.mark.parametrize(
    ("security", "reason"),
    [
        ({"privileged": True}, "it is privileged"),
        ({"add_capabilities": ("SYS_ADMIN",)}, "SYS_ADMIN is a right over the host"),
        ({"add_capabilities": ("ALL",)}, "LINUX_IMMUTABLE is a right over the host"),
    ],
)
def test_rights_over_the_host_need_its_users_unless_a_user_namespace_was_asked_for(
    security: dict[str, object], reason: str
) -> None:
    assert refused(**security) == reason
    assert refused(asked=True, **security) == ""


@pytest.mark.parametrize("asked", [False, True])
def test_a_user_beyond_the_range_needs_the_hosts(asked: bool) -> None:
    assert "user or group 65536 is beyond" in refused(asked=asked, user="65536")
    assert "user or group 70000 is beyond" in refused(asked=asked, image_user="70000:5")
    assert "user or group 99999 is beyond" in refused(asked=asked, groups=(99999,))
    assert refused(asked=asked, user="65535", image_user="70000") == ""


@pytest.mark.parametrize("shared", [{"network": "host"}, {"host_pid": True}, {"host_ipc": True}])
def test_a_namespace_of_the_host_needs_its_users_unless_a_user_namespace_was_asked_for(
    shared: dict[str, object],
) -> None:
    config = replace(BOX, **shared)  # type: ignore[arg-type] # by name
    assert users.of_sandbox(Mapper(), config, "box", frozenset()) == 0
    assert users.of_sandbox(Mapper(), replace(config, users="own"), "box", frozenset()) > 0


def test_a_machine_that_cannot_is_an_error_only_for_those_who_asked() -> None:
    cannot = Mapper(missing="no such kernel")
    assert users.of_sandbox(cannot, BOX, "box", frozenset()) == 0
    with pytest.raises(FailedPrecondition, match="no user namespace can be had here: no such kernel"):
        users.of_sandbox(cannot, replace(BOX, users="own"), "box", frozenset())


def test_a_container_that_is_refused_shares_the_hosts_users_or_is_told_why() -> None:
    sandbox = Sandbox(id="box", config=BOX, state=SandboxState.READY, created=datetime.now(UTC), first_id=700_000_000)
    assert users.of_container(sandbox, "") == 700_000_000
    assert users.of_container(sandbox, "it is privileged") == 0
    asked = replace(sandbox, config=replace(BOX, users="own"))
    with pytest.raises(InvalidArgument, match="cannot have users of its own: it is privileged"):
        users.of_container(asked, "it is privileged")
