"""What must not be in an image: secrets of this build refuse it, keys and dead weight are found in any."""

import base64
import os
from pathlib import Path
from textwrap import wrap
from typing import Any
from urllib.parse import quote

import pytest

from kestrel.base.errors import KestrelError, NotFound
from kestrel.build.events import Warned
from kestrel.build.leaks import Look, SecretLeaked, known_forms
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
VALUE = "s3cr3t/v@lue+42"
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn\n" * 3 + "-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    (tmp_path / "secret").write_text(VALUE + "\n")
    yield made
    assert made.snapshots.keys() == []
    made.database.close()


@pytest.mark.parametrize(
    "text",
    [
        "RUN --mount=type=secret,id=key cat /run/secrets/key > /kept",
        'RUN --mount=type=secret,id=key,env=K echo x$K > /kept; rm /kept; echo "user:$K" > /other',
        "COPY swept /app/",
        "COPY encoded /app/",
        "COPY inside /app/",
        "COPY url /app/",
        "COPY <<EOF /f\n" + VALUE + "\nEOF",
        f"ENV TOKEN={VALUE}",
        f"LABEL a=prefix-{VALUE}",
        f"ARG T={VALUE}\nRUN true",
    ],
)
async def test_a_secret_of_the_build_never_gets_into_a_layer_or_the_configuration(world: World, text: str) -> None:
    world.file("swept", "x" * 3_000_000 + VALUE)
    world.file("encoded", base64.b64encode(VALUE.encode()).decode())
    world.file("inside", base64.b64encode(f"login:{VALUE}@host".encode()).decode())
    world.file("url", quote(VALUE, safe=""))
    before = set(world.snapshots.layers())
    with pytest.raises(SecretLeaked, match="the value of the secret `key` is in") as caught:
        await world.build(f"FROM busybox\n{text}\n", secrets={"key": world.root / "secret"})
    assert VALUE in text or VALUE not in str(caught.value)  # the excerpt shows the Dockerfile as it is
    assert set(world.snapshots.layers()) == before


async def test_a_secret_that_is_only_used_does_no_harm(world: World) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=key wc -c < /run/secrets/key > /length\n"
    result = await world.build(text, secrets={"key": world.root / "secret"})
    assert (world.unpacked(result) / "length").read_text().strip() == str(len(VALUE) + 1)


@pytest.mark.parametrize(
    "leak",
    [
        quote(VALUE),
        quote(VALUE, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%40", "%40"),
        "\n".join(wrap(base64.b64encode(VALUE.encode()).decode(), 10)),
        "\r\n".join(wrap(base64.b64encode(f"a long line before it {VALUE}".encode()).decode(), 16)),
    ],
)
async def test_a_secret_is_found_however_it_is_encoded(world: World, leak: str) -> None:
    world.file("leak", leak)
    with pytest.raises(SecretLeaked, match=r"is in the layer \(file /there/leak\)"):
        await world.build("FROM busybox\nCOPY leak /there/\n", secrets={"key": VALUE.encode()})


async def test_the_file_of_a_secret_is_named_also_in_the_layer_of_a_run(world: World) -> None:
    world.file("long", "x" * 2_500_000)
    mounts = "--mount=type=secret,id=key --mount=target=/c"
    text = f"RUN {mounts} mkdir /d && echo x > /d/a && cat /c/long /run/secrets/key > /d/b"
    with pytest.raises(SecretLeaked, match=r"is in the layer \(file /d/b\) as it is\n  Dockerfile:2$"):
        await world.build(f"FROM busybox\n{text}\n", secrets={"key": world.root / "secret"})


async def test_layers_that_are_reused_are_searched_too(world: World) -> None:
    world.file("swept", VALUE)
    text = "FROM busybox\nCOPY swept /app/\nRUN true\n"
    await world.build(text)
    with pytest.raises(SecretLeaked, match=r"is in the layer \(file /app/swept\) as it is\n  Dockerfile:2$"):
        await world.build(text, secrets={"key": VALUE.encode()})
    await world.build(text, secrets={"key": b"another value"})


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (f"ENV A=b TOKEN=x{VALUE}", r"the environment \(TOKEN=x\*\*\*\)"),
        (f"LABEL a=prefix-{VALUE}", r"a label \(a=prefix-\*\*\*\)"),
        (f"ARG T={VALUE}\nRUN true", r"the history \(ARG T=\*\*\*\)"),
    ],
)
async def test_what_of_the_configuration_holds_a_secret_is_named_with_its_line(
    world: World, line: str, where: str
) -> None:
    with pytest.raises(SecretLeaked, match=rf"is in {where} as it is\n  Dockerfile:2$") as caught:
        await world.build(f"FROM busybox\n{line}\n", secrets={"key": VALUE.encode()})
    assert VALUE not in str(caught.value)
    assert caught.value.context["line"] == 2


async def test_a_secret_can_be_given_by_its_value(world: World) -> None:
    text = (
        "FROM busybox\nRUN --mount=type=secret,id=key,env=K --mount=type=secret,id=key cat /run/secrets/key; echo $K\n"
    )
    await world.build(text, secrets={"key": b"first\nsecond"})
    assert world.log() == ["first", "secondfirst second"]


async def test_a_secret_that_cannot_be_read_ends_the_build_before_anything_runs(world: World) -> None:
    with pytest.raises(NotFound, match="cannot read the secret `key` from /none: no such file or directory"):
        await world.build("FROM busybox\nRUN true\n", secrets={"key": Path("/none")})
    assert world.ran() == []


async def test_secrets_too_short_to_be_searched_for_are_told(world: World) -> None:
    await world.build("FROM busybox\n", secrets={"key": b"short", "long": b"long enough", "none": b""})
    assert warnings(world) == ["the secret `key` has fewer than 8 bytes, so no layer is searched for it"]


def test_keys_are_found_across_pieces_of_a_file() -> None:
    text = b"x\n" * 1000 + KEY.encode() + b"y" * 5000 + b"\n AKIAIOSFODNN7EXAMPLE\n"
    for size in (100, 2010, 3000, 7100):
        look = Look("/f", [])
        for at in range(0, len(text), size):
            look.take(text[at : at + size])
        assert look.keys == [("private key", "/f", 1001), ("AWS access key", "/f", 1007)]


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("/root/.netrc", "machine github.com login joe password hunter22", "login"),
        ("/app/.npmrc", "//r/:_auth=dXNlcjpwYXNzd29yZA==", "npm login"),
        ("/root/.git-credentials", "https://user:hunter22@github.com", "login"),
        ("/app/.env", "A=b\nexport DB_PASSWORD='hunter2hunter2'\n", "password or token"),
        ("/k.ppk", "PuTTY-User-Key-File-2: ssh-rsa", "private key"),
    ],
)
def test_files_that_are_there_for_secrets_are_read_by_their_names(path: str, text: str, kind: str) -> None:
    assert [what for what, _ in known_forms(text.encode(), path)] == [kind]
    assert known_forms(b"PASSWORD=$SECRET\nTOKEN=\nAPI_KEY=<yours>\n_authToken=${NPM_TOKEN}\n", path) == []
    if kind != "private key":
        assert known_forms(text.encode(), "/etc/other") == []


def test_known_forms_are_told_from_what_only_begins_like_them() -> None:
    assert known_forms(b"a\nb AKIAIOSFODNN7EXAMPLE c") == [("AWS access key", 2)]
    assert known_forms(KEY.encode()) == [("private key", 1)]
    assert known_forms(b'{"auths": {"x": {"auth": "dXNlcjpwYXNzd29yZA=="}}}') == [("registry login", 1)]
    assert known_forms(b"-----BEGIN PRIVATE KEY-----\0-----BEGIN CERTIFICATE----- AKIA ghp_short eyJ") == []


async def test_keys_in_layers_are_found_even_if_a_later_step_removes_them(world: World) -> None:
    world.file("id_rsa", KEY)
    result = await world.build(
        "FROM busybox\nCOPY id_rsa /root/.ssh/id_rsa\nRUN rm /root/.ssh/id_rsa\n"
        "ENV T=ghp_0123456789abcdefghijABCDEFGHIJ012345\n",
        tags=("keys:1",),
    )
    assert result.names
    found = (await world.builder.contents("keys:1")).keys
    assert [(k.what, k.where, k.removed) for k in found][:2] == [
        ("private key", "/root/.ssh/id_rsa", True),
        ("GitHub token", "the environment", False),
    ]
    assert found[0].created_by.startswith("COPY id_rsa")


async def test_waste_is_told_with_its_reason_and_remedy(world: World) -> None:
    world.file("big", "x" * 100_000)
    await world.build(
        "FROM busybox\nCOPY big /a\nCOPY big /b\nRUN chmod 600 /a && rm /b\n"
        "RUN mkdir -p /var/lib/apt/lists /var/cache/apt /root/.npm/_cacache && echo list > /var/lib/apt/lists/x &&"
        " echo bin > /var/cache/apt/pkgcache.bin && echo npm > /root/.npm/_cacache/x\nRUN echo new > /a\n",
        tags=("waste:1",),
    )
    found = await world.builder.contents("waste:1")
    assert [layer.size for layer in found.layers[1:3]] == [100_000, 100_000]
    assert {each.why: each.size for each in found.layers[3].waste.values()} == {
        "copies files only to change mode or owner": 100_000,
        "removes files of earlier layers, which stay in them": 100_000,
    }
    remedies = {each.remedy.partition(" ")[0]: each.size for each in found.layers[4].waste.values()}
    assert remedies == {"rm": 5, "apt-get": 4, "npm": 4}
    assert [each.why for each in found.layers[5].waste.values()] == ["replaces files of earlier layers"]
    with pytest.raises(KestrelError):
        await world.builder.contents("nothing:here")


KEPT = ["stage-0/1: private key in /src/id_rsa:2", "stage-0/2: private key in /made:2"]


def warnings(world: World) -> list[str]:
    return sorted(event.text.partition(";")[0] for event in world.events if isinstance(event, Warned))


async def test_a_build_tells_of_keys_with_file_and_step_also_of_those_removed_later(world: World) -> None:
    world.write(src__id_rsa="a comment\n" + KEY, src__fine="fine")
    text = "FROM busybox\nCOPY src /src\nRUN cp /src/id_rsa /made && rm -r /src\nRUN rm /made\n"
    await world.build(text)
    assert warnings(world) == KEPT
    await world.build(text)
    assert world.ran() == []
    assert warnings(world) == KEPT  # as long as they are there, not only when a step runs
    world.write(src__fine="changed")
    await world.build(text)
    assert warnings(world) == KEPT


async def test_keys_in_stages_that_no_image_gets_are_not_told(world: World) -> None:
    world.write(id_rsa=KEY)
    text = "FROM busybox AS secret\nCOPY id_rsa /\nRUN cp /id_rsa /x\nFROM busybox\nCOPY --from=secret /bin/sh /x\n"
    await world.build(text)
    assert warnings(world) == []
    await world.build(text, target="secret")
    assert warnings(world) == ["secret/1: private key in /id_rsa:1", "secret/2: private key in /x:1"]


async def test_keys_in_files_that_an_earlier_layer_gave_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(id_rsa=KEY, fine="fine")
    monkeypatch.setattr("kestrel.build.digests.RACY_NS", -(10**12))  # what was written just now is old enough
    monkeypatch.setattr("kestrel.build.layers.keys_in", lambda _: pytest.fail("a layer was read again"))
    await world.build("FROM scratch\nCOPY . /\n")
    world.write(fine="changed")
    await world.build("FROM scratch\nCOPY . /\n")
    assert world.ran() == ["stage-0/1"]
    assert warnings(world) == ["stage-0/1: private key in /id_rsa:1"]
