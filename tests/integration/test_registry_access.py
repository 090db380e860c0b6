"""Accounts, grants, keys and tokens of the registry: over HTTP, and with docker, podman, skopeo and our own client."""

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.distribution import Client, FileConfig
from kestrel.distribution import Settings as ClientSettings
from kestrel.http.client import session
from kestrel.http.server import Server, Tcp
from kestrel.linux.crypt import hash_password
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference
from kestrel.registry import Registry, Settings
from kestrel.testing.images import tiny_image

from .test_registry_peers import docker as docker
from .test_registry_peers import run
from .test_registry_server import World, code, image

PASSWORD = "correct horse"


@dataclass
class Guarded(World):
    """A registry with the accounts alice (all of team) and bob (reads team/app), and public/** for everybody."""

    htpasswd: Path

    @property
    def host(self) -> str:
        return self.base.removeprefix("http://")


def basic(name: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


@pytest_asyncio.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    root = tmp_path / "kestrel"
    root.mkdir()
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(f"# people\ncarol:{hash_password(PASSWORD, cost=4)}\n")
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    registry = Registry(content, database, Settings(htpasswd=htpasswd))
    made = tiny_image(content, files={"etc/motd": b"hello"}, cmd=["cat", "/etc/motd"])
    for name in ("team/app", "team/other", "public/app"):
        registry.repositories.link(name, "v1", made.manifest.digest)
    accounts = registry.accounts
    accounts.add_user("alice", PASSWORD, (("team/**", "push,delete"),))
    accounts.add_user("bob", PASSWORD, (("team/app", "pull"),))
    accounts.grant("anonymous", "public/**", "pull")
    async with Server(registry.handle, [Tcp()]) as server, session() as http:
        yield Guarded(server.addresses[0], http, registry, content, database, htpasswd)
    database.close()


async def token(world: Guarded, query: str, **headers: str) -> dict[str, Any]:
    status, _, body = await world.ask("GET", f"/token?service=kestrel-registry&{query}", headers=headers)
    assert status == 200, body
    answer: dict[str, Any] = json.loads(body)
    return answer


async def test_who_shows_nothing_is_told_where_to_log_in(guarded: Guarded) -> None:
    status, headers, body = await guarded.ask("GET", "/v2/")
    assert (status, code(body)) == (401, "UNAUTHORIZED")
    assert headers["www-authenticate"] == f'Bearer realm="{guarded.base}/token",service="kestrel-registry"'
    status, headers, _ = await guarded.ask("POST", "/v2/team/app/blobs/uploads/")
    assert headers["www-authenticate"].endswith(',scope="repository:team/app:pull,push"')
    for path in ("team/app", "team/no-such-thing"):
        status, _, body = await guarded.ask("GET", f"/v2/{path}/manifests/v1")
        assert (status, json.loads(body)["errors"][0]["message"]) == (401, f"logging in is needed for pull in {path}")
    assert (await guarded.ask("GET", "/metrics"))[0] == 401


async def test_a_name_with_a_password_or_a_key_may_do_what_was_granted(guarded: Guarded) -> None:
    alice, bob = basic("alice", PASSWORD), basic("bob", PASSWORD)
    key = basic("bob", guarded.registry.accounts.add_key("bob"))
    for login in (alice, bob, key):
        assert (await guarded.ask("GET", "/v2/", headers=login))[0] == 200
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=login))[0] == 200
    for path in ("team/other", "team/no-such-thing"):
        status, _, body = await guarded.ask("GET", f"/v2/{path}/manifests/v1", headers=bob)
        assert (status, code(body)) == (403, "DENIED")
    status, _, body = await guarded.ask("POST", "/v2/team/app/blobs/uploads/", headers=bob)
    assert (status, code(body)) == (403, "DENIED")
    assert (await guarded.ask("POST", "/v2/team/app/blobs/uploads/", headers=alice))[0] == 202
    for wrong in (basic("alice", "wrong password"), basic("nobody", PASSWORD), basic("alice", key["Authorization"])):
        assert (await guarded.ask("GET", "/v2/", headers=wrong))[0] == 401
    for broken in ("Basic ???", "Basic " + base64.b64encode(b"no colon").decode()):
        assert (await guarded.ask("GET", "/v2/", headers={"Authorization": broken}))[0] == 400


async def test_what_is_public_is_read_by_everybody_also_from_memory(guarded: Guarded) -> None:
    for _ in range(2):
        assert (await guarded.ask("GET", "/v2/public/app/manifests/v1"))[0] == 200
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=basic("bob", PASSWORD)))[0] == 200
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1"))[0] == 401
    assert (await guarded.ask("DELETE", "/v2/public/app/manifests/v1"))[0] == 401
    assert json.loads((await guarded.ask("GET", "/v2/_catalog"))[2]) == {"repositories": ["public/app"]}
    _, headers, body = await guarded.ask("GET", "/v2/_catalog?n=2", headers=basic("alice", PASSWORD))
    assert json.loads(body) == {"repositories": ["public/app", "team/app"]}
    _, _, body = await guarded.ask("GET", headers["link"][1:].partition(">")[0], headers=basic("alice", PASSWORD))
    assert json.loads(body) == {"repositories": ["team/other"]}


async def test_a_token_gives_what_was_asked_for_and_no_more_than_is_granted(guarded: Guarded) -> None:
    both = "scope=repository:team/app:pull,push&scope=repository:team/other:pull"
    answer = await token(guarded, both, **basic("bob", PASSWORD))
    claims = json.loads(base64.urlsafe_b64decode(answer["token"].split(".")[1] + "=="))
    assert claims["access"] == [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    assert answer["token"] == answer["access_token"]
    assert answer["expires_in"] >= 60
    bearer = {"Authorization": f"Bearer {answer['token']}"}
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=bearer))[0] == 200
    assert (await guarded.ask("POST", "/v2/team/app/blobs/uploads/", headers=bearer))[0] == 403
    narrow = await token(guarded, "scope=repository:team/app:pull", **basic("alice", PASSWORD))
    bearer = {"Authorization": f"Bearer {narrow['token']}"}
    status, headers, _ = await guarded.ask("POST", "/v2/team/app/blobs/uploads/", headers=bearer)
    assert status == 401  # she may, with another token: the challenge says which
    assert 'scope="repository:team/app:pull,push"' in headers["www-authenticate"]
    nobody = await token(guarded, "scope=repository:public/app:pull")
    bearer = {"Authorization": f"Bearer {nobody['token']}"}
    assert (await guarded.ask("GET", "/v2/public/app/manifests/v1", headers=bearer))[0] == 200


async def test_a_token_that_was_changed_or_is_anothers_or_over_is_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await token(guarded, "scope=repository:team/app:pull", **basic("bob", PASSWORD))
    head, body, signature = answer["token"].split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "alice"}).encode()).decode().rstrip("=")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for wrong in (f"{head}.{forged}.{signature}", f"{none}.{forged}.", "x.y.z", "nonsense"):
        status, _, _ = await guarded.ask("GET", "/v2/", headers={"Authorization": f"Bearer {wrong}"})
        assert status == 401
    bearer = {"Authorization": f"Bearer {answer['token']}"}
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=bearer))[0] == 200
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=bearer))[0] == 401


async def test_a_grant_taken_back_is_gone_at_once_for_tokens_and_passwords(guarded: Guarded) -> None:
    answer = await token(guarded, "scope=repository:team/app:pull", **basic("bob", PASSWORD))
    logins = ({"Authorization": f"Bearer {answer['token']}"}, basic("bob", PASSWORD))
    for login in logins:
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=login))[0] == 200
    guarded.registry.accounts.revoke("bob", "team/app")
    for login in logins:
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=login))[0] == 403
    guarded.registry.accounts.remove_account("bob")
    for login in logins:
        assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=login))[0] == 401


async def test_an_identity_token_stands_in_for_the_password_until_it_is_ended(guarded: Guarded) -> None:
    form = {"grant_type": "password", "username": "alice", "password": PASSWORD, "access_type": "offline"}
    status, _, body = await guarded.ask("POST", "/token", data={**form, "client_id": "docker"})
    assert status == 200
    identity = json.loads(body)["refresh_token"]
    refresh = {"grant_type": "refresh_token", "refresh_token": identity, "scope": "repository:team/app:push"}
    status, _, body = await guarded.ask("POST", "/token", data=refresh)
    assert status == 200
    bearer = {"Authorization": f"Bearer {json.loads(body)['access_token']}"}
    assert (await guarded.ask("HEAD", "/v2/team/app/manifests/v1", headers=bearer))[0] == 401  # it asked for push only
    assert (await guarded.ask("GET", "/v2/", headers=basic("alice", identity)))[0] == 401  # it is no password
    [login] = [key for key in guarded.registry.accounts.keys("alice") if key.kind == "session"]
    assert login.label == "docker"
    guarded.registry.accounts.remove_key(login.id)
    assert (await guarded.ask("POST", "/token", data=refresh))[0] == 401
    for wrong in ({"grant_type": "password", "username": "alice", "password": "no"}, {"grant_type": "other"}, {}):
        assert (await guarded.ask("POST", "/token", data=wrong))[0] in (400, 401)


async def test_people_of_an_htpasswd_file_log_in_and_changes_to_it_are_seen(guarded: Guarded) -> None:
    accounts = guarded.registry.accounts
    accounts.grant("everyone", "team/app", "pull")
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=basic("carol", PASSWORD)))[0] == 200
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1"))[0] == 401
    guarded.htpasswd.write_text(f"dave:{hash_password(PASSWORD, cost=4)}\n")
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=basic("carol", PASSWORD)))[0] == 401
    assert (await guarded.ask("GET", "/v2/team/app/manifests/v1", headers=basic("dave", PASSWORD)))[0] == 200


async def test_a_blob_is_mounted_only_from_where_one_may_read(guarded: Guarded) -> None:
    secret = guarded.content.put(b"secret layer")
    guarded.registry.repositories.add_blob("private/app", secret)
    for query in (f"mount={secret}&from=private/app", f"mount={secret}"):
        status, _, _ = await guarded.ask(
            "POST", f"/v2/team/app/blobs/uploads/?{query}", headers=basic("alice", PASSWORD)
        )
        assert status == 202  # as if it did not exist: send it
    layer = Digest.of(b"shared layer")
    guarded.content.put(b"shared layer")
    guarded.registry.repositories.add_blob("public/app", layer)
    path = f"/v2/team/app/blobs/uploads/?mount={layer}&from=public/app"
    narrow = await token(guarded, "scope=repository:team/app:pull,push", **basic("alice", PASSWORD))
    bearer = {"Authorization": f"Bearer {narrow['token']}"}
    status, headers, _ = await guarded.ask("POST", path, headers=bearer)
    assert status == 401  # she may read there, with another token: the challenge says which
    assert 'scope="repository:team/app:pull,push repository:public/app:pull"' in headers["www-authenticate"]
    assert (await guarded.ask("POST", path, headers=basic("alice", PASSWORD)))[0] == 201


async def test_the_history_of_a_tag_says_who_moved_it(guarded: Guarded) -> None:
    alice = basic("alice", PASSWORD)
    for blob in (b"{}", b"layer"):
        path = f"/v2/team/app/blobs/uploads/?digest={Digest.of(blob)}"
        assert (await guarded.ask("POST", path, data=blob, headers=alice))[0] == 201
    status, _, body = await guarded.ask("PUT", "/v2/team/app/manifests/v1", data=image(), headers=alice)
    assert status == 201, body
    assert [change.actor for change in guarded.registry.repositories.history("team/app", "v1")] == [
        "alice",
        "this node",
    ]


def logged_in(world: Guarded, directory: Path, name: str, **more: str) -> Path:
    """Write a docker configuration with a login."""
    directory.mkdir()
    auth = base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()
    path = directory / "config.json"
    path.write_text(json.dumps({"auths": {world.host: {"auth": auth, **more}}}))
    return path


async def test_our_own_client_pulls_with_a_login_and_with_an_identity_token(guarded: Guarded, tmp_path: Path) -> None:
    path = logged_in(guarded, tmp_path / "alice", "alice")
    ref = Reference.parse(f"{guarded.host}/team/other:v1")
    async with Client.open(ClientSettings(docker_config=path)) as client:
        descriptor, data = await client.manifest(ref)
        await client.push_manifest(ref.with_tag("v2"), descriptor.media_type, data)
    identity = (await token(guarded, "offline_token=true&client_id=docker", **basic("bob", PASSWORD)))["refresh_token"]
    path.write_text(json.dumps({"auths": {guarded.host: {"auth": "", "identitytoken": identity}}}))
    async with Client.open(credentials=FileConfig(path)) as client:
        assert (await client.manifest(Reference.parse(f"{guarded.host}/team/app:v1")))[0].size


@pytest.mark.clients
async def test_skopeo_logs_in_and_copies(guarded: Guarded, tmp_path: Path) -> None:
    auth = str(tmp_path / "auth.json")
    await run("skopeo", "login", "--tls-verify=false", "--authfile", auth, "-u", "alice", "-p", PASSWORD, guarded.host)
    plain = ["--src-tls-verify=false", "--dest-tls-verify=false", "--authfile", auth]
    here = f"docker://{guarded.host}/team"
    await run("skopeo", "copy", *plain, f"{here}/app:v1", f"{here}/copy:v1")
    with pytest.raises(AssertionError, match="403"):
        await run("skopeo", "copy", *plain, f"{here}/app:v1", f"docker://{guarded.host}/elsewhere:v1")
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|password"):
        await run("skopeo", "login", "--tls-verify=false", "--authfile", auth, "-u", "bob", "-p", "wrong", guarded.host)
    await run("skopeo", "inspect", "--tls-verify=false", "--no-creds", f"docker://{guarded.host}/public/app:v1")


@pytest.mark.root
@pytest.mark.clients
async def test_podman_and_buildah_log_in_with_a_robots_key(guarded: Guarded, tmp_path: Path) -> None:
    key = guarded.registry.accounts.add_robot("ci", (("team/**", "pull,push"),))
    auth, remote = ["--tls-verify=false", "--authfile", str(tmp_path / "auth.json")], f"{guarded.host}/team/app:v1"
    for tool in ("podman", "buildah"):
        run_root = Path(tempfile.mkdtemp(prefix="ktest-"))  # podman takes no more than 50 characters
        client = [tool, "--root", tmp_path / tool, "--runroot", run_root, "--storage-driver", "vfs"]
        try:
            await run(*client, "login", *auth, "-u", "ci", "-p", key, guarded.host)
            await run(*client, "pull", *auth, remote)
            await run(*client, "push", *auth, remote, f"docker://{guarded.host}/team/{tool}:v2")
            assert guarded.registry.repositories.manifest(f"team/{tool}", "v2") is not None
            await run(*client, "rmi", "--all", "--force")
        finally:
            shutil.rmtree(run_root)


@pytest.mark.clients
async def test_crane_regctl_and_oras_work_with_a_login(guarded: Guarded, tmp_path: Path) -> None:
    """They are no packages of this system; where somebody has them they are driven too."""
    path = logged_in(guarded, tmp_path / "docker", "alice")
    environment = {"DOCKER_CONFIG": str(path.parent), "HOME": str(tmp_path)}
    here = f"{guarded.host}/team"
    await run("crane", "copy", "--insecure", f"{here}/app:v1", f"{here}/crane:v1", environment=environment)
    assert (await run("crane", "ls", "--insecure", f"{here}/crane", environment=environment)).split() == ["v1"]
    await run("regctl", "registry", "set", "--tls=disabled", guarded.host, environment=environment)
    await run("regctl", "image", "copy", f"{here}/app:v1", f"{here}/regctl:v1", environment=environment)
    (tmp_path / "note.txt").write_text("a note")
    attach = ["oras", "attach", "--plain-http", "--disable-path-validation", "--artifact-type", "text/note"]
    await run(*attach, f"{here}/app:v1", str(tmp_path / "note.txt"), environment=environment)
    said = await run("oras", "discover", "--plain-http", f"{here}/app:v1", environment=environment)
    assert "text/note" in said


async def test_too_many_logins_at_once_are_put_off(guarded: Guarded) -> None:
    wrong = [basic("alice", f"wrong {number}") for number in range(120)]
    answers = await asyncio.gather(*(guarded.ask("GET", "/v2/", headers=each) for each in wrong))
    assert {status for status, _, _ in answers} == {401, 429}
    assert (await guarded.ask("GET", "/v2/", headers=basic("alice", PASSWORD)))[0] == 200


@pytest.mark.root
@pytest.mark.clients
async def test_docker_logs_in_and_keeps_an_identity_token_instead_of_the_password(
    guarded: Guarded, docker: list[str]
) -> None:
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|password"):
        await run(*docker, "login", "-u", "alice", "-p", "wrong password", guarded.host)
    await run(*docker, "login", "-u", "alice", "-p", PASSWORD, guarded.host)
    config = json.loads(Path(docker[-1], "config.json").read_text())
    assert config["auths"][guarded.host]["identitytoken"].startswith("kst_")
    await run(*docker, "pull", f"{guarded.host}/team/app:v1")
    await run(*docker, "tag", f"{guarded.host}/team/app:v1", f"{guarded.host}/team/docker:v2")
    await run(*docker, "push", f"{guarded.host}/team/docker:v2")
    await run(*docker, "tag", f"{guarded.host}/team/app:v1", f"{guarded.host}/elsewhere:v2")
    with pytest.raises(AssertionError, match="denied"):
        await run(*docker, "push", f"{guarded.host}/elsewhere:v2")
    guarded.registry.accounts.remove_account("alice")
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|denied|log in"):
        await run(*docker, "pull", f"{guarded.host}/team/app:v1")
