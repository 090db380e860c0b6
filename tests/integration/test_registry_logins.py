"""Logging in and out: tried at a registry, kept in docker's file or its helper."""

import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from kestrel.base.errors import InvalidArgument, NotFound, Unauthenticated
from kestrel.distribution import Client, DockerConfig, Logins
from kestrel.http.server import Server, Tcp

HELPER = """#!/bin/sh
case $1 in
store) cat > {place}/kept ;;
get) read server; [ -e {place}/kept ] && cat {place}/kept || {{ echo credentials not found; exit 1; }} ;;
erase) rm {place}/kept ;;
esac
"""


@pytest.fixture
async def registry() -> AsyncIterator[str]:
    """The address of a registry that knows `me` with the password `pa:ss`."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        secret = base64.b64encode(b"me:pa:ss").decode()
        if request.headers.get("Authorization") == f"Basic {secret}":
            return web.Response(headers={"Docker-Distribution-API-Version": "registry/2.0"})
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})

    async with Server(answer, [Tcp()]) as server:
        yield server.addresses[0].partition("//")[2]


@pytest.fixture
async def logins(tmp_path: Path) -> AsyncIterator[Logins]:
    async with Client.open() as client:
        yield Logins(client, tmp_path / "docker/config.json")


async def test_credentials_are_tried_and_kept_beside_what_is_there(
    registry: str, logins: Logins, tmp_path: Path
) -> None:
    file = tmp_path / "docker/config.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"psFormat": "x", "auths": {"other.lan": {"auth": "YTpi"}}}))
    assert await logins.login(registry, "me", "pa:ss") == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["psFormat"] == "x"
    found = await DockerConfig.load(file).lookup(registry)
    assert found is not None
    assert (found.username, found.password) == ("me", "pa:ss")
    await logins.logout(registry)
    assert set(json.loads(file.read_text())["auths"]) == {"other.lan"}
    with pytest.raises(NotFound, match="not logged in"):
        await logins.logout(registry)


async def test_what_the_registry_refuses_is_not_kept(registry: str, logins: Logins, tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated):
        await logins.login(registry, "me", "wrong")
    with pytest.raises(InvalidArgument):
        await logins.login(registry, "me", "")
    assert not (tmp_path / "docker/config.json").exists()


async def test_a_helper_keeps_them_where_docker_is_told_so(
    registry: str, logins: Logins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "docker/config.json"
    file.parent.mkdir()
    file.write_text('{"credsStore": "ktest"}')
    program = tmp_path / "bin/docker-credential-ktest"
    program.parent.mkdir()
    program.write_text(HELPER.format(place=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert await logins.login(registry, "me", "pa:ss") == "docker-credential-ktest"
    assert json.loads((tmp_path / "kept").read_text()) == {"ServerURL": registry, "Username": "me", "Secret": "pa:ss"}
    assert file.read_text() == '{"credsStore": "ktest"}'
    found = await DockerConfig.load(file).lookup(registry)
    assert found is not None
    assert found.password == "pa:ss"
    await logins.logout(registry)
    assert await DockerConfig.load(file).lookup(registry) is None
