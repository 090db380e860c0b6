"""`kestrel registry` on a Kestrel of its own: accounts and TLS, tags and collections, as their owner types them."""

import base64
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from kestrel.testing.instance import Instance

from .conftest import end

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
PASSWORD = "correct horse"


@pytest.fixture
def kestrel() -> Iterator[Instance]:
    with Instance.make(KESTREL_REGISTRY_TLS="1", KESTREL_REGISTRY_NAMES="registry.test") as made:
        yield made
        end(made)


def get(kestrel: Instance, path: str, login: "tuple[str, str] | None" = None) -> int:
    """Ask the registry over TLS, trusting this Kestrel's authority and nobody else."""
    trusted = ssl.create_default_context(cafile=str(kestrel.root / "kubernetes/ca.crt"))
    request = Request(f"https://{kestrel.registry}{path}")
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(":".join(login).encode()).decode())
    try:
        with urlopen(request, context=trusted) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def skopeo(kestrel: Instance, verb: str, *words: str) -> None:
    """Run skopeo over TLS; it trusts this Kestrel's authority and keeps its login for the next call."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (apt-get install skopeo)")
    trusted = kestrel.base / "trusted"
    trusted.mkdir(exist_ok=True)
    shutil.copy(kestrel.root / "kubernetes/ca.crt", trusted / "ca.crt")
    kinds = ("--src-cert-dir", "--dest-cert-dir") if verb == "copy" else ("--cert-dir",)
    options = [word for kind in kinds for word in (kind, str(trusted))]
    argv = ["skopeo", verb, *options, "--authfile", str(kestrel.base / "auth.json"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_accounts_are_made_used_and_taken_away(kestrel: Instance) -> None:
    kestrel.build("box", "FROM scratch\nCOPY hello /\n", {"hello": "hello"})
    name = f"{kestrel.registry}/team/app:v1"
    kestrel("tag", "box", name)
    kestrel("push", name)
    manifest = "/v2/team/app/manifests/v1"
    assert get(kestrel, manifest) == 200
    added = kestrel("registry", "user", "add", "alice", "--grant", "team/**:pull,push", stdin=f"{PASSWORD}\n")
    assert PASSWORD not in added.out + added.err
    assert get(kestrel, manifest) == 401
    assert get(kestrel, manifest, ("alice", PASSWORD)) == 200
    again = f"{kestrel.registry}/team/app:v2"
    assert "kestrel login" in kestrel("copy", name, again, code=1).err
    login = ("login", "-u", "alice", "--password-stdin", kestrel.registry)
    assert kestrel(*login, stdin="another password\n", code=1).out == ""
    assert "alice" in kestrel(*login, stdin=f"{PASSWORD}\n").err
    assert kestrel("copy", "-q", name, again).out.startswith("sha256:")
    kestrel("logout", kestrel.registry)
    kestrel("copy", name, again, code=1)
    skopeo(kestrel, "login", "-u", "alice", "-p", PASSWORD, kestrel.registry)
    skopeo(kestrel, "copy", f"docker://{name}", f"docker://{kestrel.registry}/team/copy:v1")
    assert get(kestrel, "/v2/team/copy/manifests/v1", ("alice", PASSWORD)) == 200
    key = kestrel("registry", "robot", "add", "ci", "--days", "1").out.strip()
    assert get(kestrel, manifest, ("ci", key)) == 403
    assert kestrel("registry", "why", "ci", "pull", "team/app", code=1).out == "no\n"
    kestrel("registry", "grant", "add", "ci", "team/*", "pull")
    assert get(kestrel, manifest, ("ci", key)) == 200
    why = kestrel("registry", "why", "ci", "pull", "team/app")
    assert (why.out, why.err) == ("yes\n", "ci has pull for team/*\n")
    listed = kestrel("registry", "user", "list").out
    assert "alice" in listed
    assert "robot" in listed
    [row] = kestrel("registry", "key", "list", "ci", "--json").json()
    kestrel("registry", "key", "rm", row["id"])
    assert get(kestrel, manifest, ("ci", key)) == 401
    kestrel.kill_daemon()
    kestrel("up")
    assert get(kestrel, manifest, ("alice", PASSWORD)) == 200
    again = f"{kestrel.registry}/team/app:v2"
    assert "kestrel login" in kestrel("copy", name, again, code=1).err
    login = ("login", "-u", "alice", "--password-stdin", kestrel.registry)
    assert kestrel(*login, stdin="another password\n", code=1).out == ""
    assert "alice" in kestrel(*login, stdin=f"{PASSWORD}\n").err
    assert kestrel("copy", "-q", name, again).out.startswith("sha256:")
    kestrel("logout", kestrel.registry)
    kestrel("copy", name, again, code=1)
    wrong = kestrel("registry", "grant", "add", "alice", "team/*", "pul", code=None)
    assert "did you mean pull?" in wrong.err
    assert "did you mean `kestrel registry user add`?" in kestrel("registry", "usr", "add", "x", code=None).err


def test_without_accounts_it_refuses_to_listen_to_a_network(kestrel: Instance) -> None:
    open_to_all = {"KESTREL_REGISTRY_ADDRESS": "0.0.0.0"}
    said = kestrel("up", code=None, env=open_to_all)
    assert said.code != 0
    assert "no accounts" in said.err
    assert "kestrel registry user add" in said.err
    kestrel("registry", "user", "add", "alice", "--grant", "**:pull", stdin=f"{PASSWORD}\n")
    kestrel("down")
    assert kestrel("up", env=open_to_all).code == 0
    assert get(kestrel, "/v2/") == 401
    assert get(kestrel, "/v2/", ("alice", PASSWORD)) == 200


def test_tags_are_protected_rolled_back_and_restored_and_a_collection_explains_itself(kestrel: Instance) -> None:
    name = f"{kestrel.registry}/team/app:v1"
    for text in ("one", "two"):
        kestrel.build("box", "FROM scratch\nCOPY hello /\n", {"hello": text})
        kestrel("tag", "box", name)
        kestrel("push", name)
    two, one = (entry["digest"] for entry in kestrel("registry", "history", "team/app:v1", "--json").json())
    assert kestrel("registry", "rollback", "team/app:v1").out.strip() == one
    kestrel("registry", "immutable", "add", "team/*:v*")
    assert "immutable" in kestrel("push", name, code=None).err
    assert "immutable" in kestrel("registry", "rollback", "team/app:v1", code=None).err
    assert kestrel("registry", "immutable", "list").out == "team/*:v*\n"
    kestrel("registry", "immutable", "rm", "team/*:v*")
    assert kestrel("registry", "rollback", "team/app:v1", two).out.strip() == two
    plan = kestrel("registry", "gc", "--dry-run")
    assert f"keep  {two}" in plan.out
    assert "manifest team/app:v1" in plan.out
    assert "would remove 0 blobs" in plan.err
    assert json.loads(kestrel("registry", "gc", "--json").out)["removed"] == 0
    assert kestrel("registry", "deleted", "--json").json() == []


def test_a_prefix_is_a_cache_of_another_registry(kestrel: Instance) -> None:
    """The other registry is this one, which does not know that it is asking itself."""
    kestrel.build("box", "FROM scratch\nCOPY hello /\n", {"hello": "hello"})
    kestrel("tag", "box", f"{kestrel.registry}/team/app:v1")
    kestrel("push", f"{kestrel.registry}/team/app:v1")
    kestrel("registry", "upstream", "add", "hub", kestrel.registry, "--default")
    [row] = kestrel("registry", "upstream", "list", "--json").json()
    assert row == {"prefix": "hub", "registry": kestrel.registry, "default": True}
    assert get(kestrel, "/v2/hub/team/app/manifests/v1") == 200
    kestrel("pull", f"{kestrel.registry}/hub/team/app:v1")
    assert "pulled through" in kestrel("registry", "history", "hub/team/app:v1").out
    kestrel("registry", "upstream", "rm", "hub")
    assert "no cache" in kestrel("registry", "upstream", "rm", "hub", code=None).err
    assert "no registry's name" in kestrel("registry", "upstream", "add", "hub", "not a host", code=None).err


def test_without_an_undo_window_a_deleted_image_is_free_at_once() -> None:
    with Instance.make(KESTREL_REGISTRY_UNDO_HOURS="0") as kestrel:
        kestrel.build("box", "FROM scratch\nCOPY hello /\n", {"hello": "hello"})
        name = f"{kestrel.registry}/team/app:v1"
        kestrel("tag", "box", name)
        kestrel("push", name)
        [change] = kestrel("registry", "history", "team/app:v1", "--json").json()
        delete = Request(f"http://{kestrel.registry}/v2/team/app/manifests/{change['digest']}", method="DELETE")
        with urlopen(delete) as answer:
            assert answer.status == 202
        assert kestrel("registry", "deleted", "--json").json() == []
        assert "can be restored" not in kestrel("registry", "gc", "--dry-run").out
        end(kestrel)
