"""Whose credentials go where: docker's configuration, helper programs, pull secrets."""

import base64
import json
from pathlib import Path

import pytest

from kestrel.base.errors import InvalidArgument, Unavailable
from kestrel.distribution.credentials import Chain, Credential, DockerConfig, FileConfig, Fixed, pull_secrets


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def config(**fields: object) -> DockerConfig:
    return DockerConfig.parse(json.dumps(fields))


async def who(source: DockerConfig, domain: str, path: str = "a/b") -> str:
    found = await source.lookup(domain, path)
    return found.username if found else ""


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("registry.example", "registry.example"),
        ("https://registry.example", "registry.example"),
        ("https://registry.example/v1/", "registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
    ],
)
async def test_every_way_to_write_a_host_is_understood(key: str, domain: str) -> None:
    assert await who(config(auths={key: auth("me", "x")}), domain) == "me"


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        ("registry.example", "registry.example:5000"),
        ("registry.example", "evil-registry.example"),
        ("registry.example", "registry.example.evil"),
        ("docker.io", "docker.io.evil"),
    ],
)
async def test_credentials_never_go_to_a_host_that_only_looks_alike(key: str, domain: str) -> None:
    assert await config(auths={key: auth("me", "x")}).lookup(domain, "a/b") is None


async def test_the_most_specific_key_wins() -> None:
    keys = ["*.example", "reg.example", "reg.example/team", "reg.example/team/app"]
    source = config(auths={key: auth(key, "x") for key in keys})
    assert await who(source, "reg.example", "team/app") == "reg.example/team/app"
    assert await who(source, "reg.example", "team/other") == "reg.example/team"
    assert await who(source, "reg.example", "teammate/app") == "reg.example"
    assert await who(source, "other.example", "x") == "*.example"
    assert await who(source, "deep.other.example", "x") == ""


async def test_passwords_with_colons_and_plain_fields_and_tokens_are_read() -> None:
    source = config(
        auths={
            "a": auth("user", "p:a:ss"),
            "b": {"username": "u", "password": "p"},
            "c": {"identitytoken": "refresh"},
            "d": auth("<token>", "refresh2"),
            "e": {"registrytoken": "ready"},
            "f": {},
        }
    )
    assert await source.lookup("a") == Credential(username="user", password="p:a:ss")
    assert await source.lookup("b") == Credential(username="u", password="p")
    assert await source.lookup("c") == Credential(identity_token="refresh")
    assert await source.lookup("d") == Credential(identity_token="refresh2")
    assert await source.lookup("e") == Credential(registry_token="ready")
    assert await source.lookup("f") is None


@pytest.mark.parametrize(
    "data", ["", "[]", '{"auths": []}', '{"auths": {"a": 1}}', '{"auths": {"a": {"auth": "%%"}}}', '{"credsStore": 1}']
)
def test_a_broken_configuration_is_an_error_and_shows_no_secret(data: str) -> None:
    with pytest.raises(InvalidArgument):
        DockerConfig.parse(data)


def test_secrets_are_in_no_repr() -> None:
    shown = repr(Credential(username="me", password="hunter2", identity_token="hunter2", registry_token="hunter2"))
    assert "me" in shown
    assert "hunter2" not in shown


async def test_a_login_is_seen_without_a_restart(tmp_path: Path) -> None:
    source = FileConfig(tmp_path / "config.json")
    assert await source.lookup("reg.example") is None
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"reg.example": auth("me", "x")}}))
    found = await source.lookup("reg.example")
    assert found is not None
    assert found.username == "me"


async def test_the_first_source_that_knows_the_host_decides() -> None:
    typed = Fixed("reg.example", Credential(username="typed"))
    chain = Chain([typed, config(auths={"reg.example": auth("stored", "x"), "b": auth("b", "x")})])
    found, other = await chain.lookup("reg.example"), await chain.lookup("b")
    assert found is not None
    assert other is not None
    assert (found.username, other.username) == ("typed", "b")


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper named `ktest` that answers as its script says."""
    program = tmp_path / "docker-credential-ktest"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def test_a_helper_is_asked_for_its_host_and_wins_over_the_file(helper: Path, tmp_path: Path) -> None:
    write(helper, f'echo "$1" > {tmp_path}/said; cat >> {tmp_path}/said; echo \'{{"Username":"h","Secret":"s"}}\'')
    source = config(credHelpers={"reg.example": "ktest"}, auths={"reg.example": auth("file", "x"), "b": auth("b", "x")})
    assert await source.lookup("reg.example") == Credential(username="h", password="s")
    assert (tmp_path / "said").read_text() == "get\nreg.example"
    assert await who(source, "b") == "b"


async def test_the_store_is_asked_for_docker_hub_by_its_old_address(helper: Path, tmp_path: Path) -> None:
    write(helper, f'cat > {tmp_path}/said; echo \'{{"Username":"<token>","Secret":"refresh"}}\'')
    assert await config(credsStore="ktest").lookup("docker.io") == Credential(identity_token="refresh")
    assert (tmp_path / "said").read_text() == "https://index.docker.io/v1/"


async def test_a_store_that_knows_nothing_leaves_it_to_the_file(helper: Path) -> None:
    write(helper, 'echo "credentials not found in native keychain"; exit 1')
    assert await who(config(credsStore="ktest", auths={"a": auth("file", "x")}), "a") == "file"


@pytest.mark.parametrize(
    ("script", "words"), [("echo locked >&2; exit 2", "locked"), ("echo nonsense", "cannot be read")]
)
async def test_a_failing_helper_is_named(helper: Path, script: str, words: str) -> None:
    write(helper, script)
    with pytest.raises(Unavailable, match=f"docker-credential-ktest.*{words}"):
        await config(credsStore="ktest").lookup("a")


async def test_a_missing_helper_is_named_and_a_path_is_no_helper() -> None:
    with pytest.raises(Unavailable, match="docker-credential-ktest-absent is not installed"):
        await config(credsStore="ktest-absent").lookup("a")
    with pytest.raises(InvalidArgument):
        await config(credsStore="../../bin/sh").lookup("a")


async def test_pull_secrets_of_both_types_are_one_table() -> None:
    new = json.dumps({"auths": {"reg.example": auth("one", "x")}}).encode()
    old = json.dumps({"reg.example/team": auth("two", "x")}).encode()
    source = pull_secrets([("kubernetes.io/dockerconfigjson", new), ("kubernetes.io/dockercfg", old)])
    general, special = await source.lookup("reg.example", "x"), await source.lookup("reg.example", "team/x")
    assert general is not None
    assert special is not None
    assert (general.username, special.username) == ("one", "two")
    with pytest.raises(InvalidArgument, match="no registry credentials"):
        pull_secrets([("Opaque", b"{}")])
