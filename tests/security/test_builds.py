"""Dockerfiles and contexts that mean harm, built by a whole Kestrel."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kestrel.oci import media_types
from kestrel.oci.config import History
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.testing.images import TinyImage, oci_archive, tiny_image
from kestrel.testing.instance import Answer, Instance

pytestmark = pytest.mark.root

BUILDS = "CVE-2024-23651, CVE-2024-23652, CVE-2024-23653, CVE-2024-24557, GHSA-4c29-8rgm-jvjj: builds that reach out"
SECRET = "the host's secret"


class Context:
    """A build context, and the Kestrel to build it."""

    def __init__(self, kestrel: Instance, path: Path) -> None:
        self.kestrel = kestrel
        self.path = path

    def build(self, dockerfile: str, *words: str) -> Answer:
        (self.path / "Dockerfile").write_text(dockerfile)
        return self.kestrel("build", "-t", "evil:1", *words, str(self.path), code=None, timeout=110)

    def shown(self, command: str) -> str:
        return self.kestrel("run", "--rm", "evil:1", "sh", "-c", command, code=None).out


@pytest.fixture
def context(kestrel: Instance) -> Iterator[Context]:
    path = kestrel.base / "context"
    path.mkdir()
    yield Context(kestrel, path)
    shutil.rmtree(path)


@pytest.fixture
def inside(context: Context, outside: Path) -> Iterator[Path]:
    """The directory outside, which must be as it was after the test."""
    (outside / "empty").mkdir()
    yield outside
    assert sorted(os.listdir(outside)) == ["empty", "secret"]
    assert os.listdir(outside / "empty") == []
    assert (outside / "secret").read_text() == SECRET + "\n"
    (outside / "empty").rmdir()


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize("word", ["COPY", "ADD", "COPY --parents", "COPY --link", "COPY --chown=1:1"])
@pytest.mark.parametrize(
    "source",
    ["{out}/secret", "../../../../../../../..{out}/secret", "link", "dir/secret", "climb",
     "sub/../../../../../../..{out}/secret", "dir/*", "dir", "dir/"],
    ids=range(9),
)  # fmt: skip
def test_no_file_outside_of_the_context_is_copied(context: Context, inside: Path, word: str, source: str) -> None:
    (context.path / "link").symlink_to(inside / "secret")
    (context.path / "dir").symlink_to(inside)
    (context.path / "climb").symlink_to(f"../../../../../../..{inside}/secret")
    (context.path / "sub").mkdir()
    if context.build(f"FROM box\n{word} {source.format(out=inside)} /got/\n").code == 0:
        assert SECRET not in context.shown("find /got -type f -exec cat {} +; cat /got/* /got/*/*")


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize("kind", ["Dockerfile", ".dockerignore", "--file"])
def test_no_file_outside_is_read_in_place_of_the_context_s_own(context: Context, inside: Path, kind: str) -> None:
    """What a Dockerfile says is shown in errors, so a link must not make a file of the host one."""
    if kind == ".dockerignore":
        (context.path / ".dockerignore").symlink_to(inside / "secret")
        (context.path / "the host's secret").write_text("mine")
        context.build("FROM box\nCOPY . /got/\n")
        return
    (context.path / "Dockerfile").symlink_to(inside / "secret")
    words = ("-f", str(context.path / "Dockerfile")) if kind == "--file" else ()
    answer = context.kestrel("build", *words, "-t", "evil:1", str(context.path), code=None)
    assert answer.code != 0


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize(
    "mount",
    ["type=bind,source={out},target=/m", "type=bind,source=../../../../../..{out},target=/m",
     "type=bind,source=link,target=/m", "type=bind,from=stage,source=/link,target=/m",
     "type=bind,from=stage,source=/climb,target=/m",
     "type=cache,id=evil,source={out},target=/m", "type=cache,id=evil,source=../../../../../../..{out},target=/m",
     "type=cache,id=../../../../../../..{out},target=/m", "type=cache,from=stage,source=/link,target=/m,id=e2",
     "type=secret,id=../../../../../../..{out}/secret,target=/m/secret"],
    ids=range(10),
)  # fmt: skip
def test_no_mount_of_a_step_leads_outside(context: Context, inside: Path, mount: str) -> None:
    (context.path / "link").symlink_to(inside)
    stage = f"FROM box AS stage\nRUN ln -s {inside} /link && ln -s ../../../../../..{inside} /climb\n"
    steal = "cp -r /m /got; touch /m/new; rm -rf /m/secret; true"
    answer = context.build(f"{stage}FROM box\nRUN --mount={mount.format(out=inside)} sh -c '{steal}'\n")
    if answer.code == 0:
        assert SECRET not in context.shown("cat /got/secret /got/*/secret /got")


FLIP = (
    "for i in $(seq 400); do "
    "ln -sfn {out} /c/new; mv -T /c/new /c/sub; rm -f /c/sub; mkdir -p /c/sub; rmdir /c/sub; done; true"
)
LOOK = "cat /m/secret >>/got 2>/dev/null; touch /m/{n} 2>/dev/null; true"


@pytest.mark.threat(14, BUILDS, against="kestrel")
def test_a_cache_whose_subdirectory_another_step_swaps_leads_nowhere(context: Context, inside: Path) -> None:
    """Two stages run at once: one exchanges a directory of the cache with a link, the other mounts it."""
    flip = FLIP.format(out=inside)
    mount = "--mount=type=cache,id=race,source=sub,target=/m"
    looks = "".join(f"RUN {mount} {LOOK.format(n=n)}\n" for n in range(8))
    text = (
        f"FROM box AS flip\nRUN --mount=type=cache,id=race,target=/c {flip}\n"
        f"FROM box AS look\n{looks}RUN touch /got\n"
        "FROM box\nCOPY --from=flip /etc/passwd /x\nCOPY --from=look /got /got\n"
    )
    if context.build(text, "--no-cache").code == 0:
        assert SECRET not in context.shown("cat /got")


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize("target", ["/stub/empty", "/stub/made/here", "/stub/secret"])
def test_no_place_of_a_mount_is_made_outside_through_a_link(context: Context, inside: Path, target: str) -> None:
    context.build(
        f"FROM box\nRUN ln -s {inside} /stub\nRUN --mount=type=tmpfs,target={target} true\n"
        f"RUN --mount=type=bind,source=Dockerfile,target={target} true\n"
    )


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize(
    "swap", ["umount /a/empty; mv /a /z", "mv /a /z", "umount /a/empty; rmdir /a/empty /a", "mkdir -p /y; mv -T /a /y"]
)
def test_no_place_of_a_mount_is_taken_away_outside(context: Context, inside: Path, swap: str) -> None:
    """The step made /a/empty as a place to mount on, and removes it: not what the command put there."""
    context.build(f"FROM box\nRUN --mount=type=tmpfs,target=/a/empty ({swap}); ln -sfn {inside} /a; true\n")
    context.build(f"FROM box\nRUN --mount=type=tmpfs,target=/a/empty ln -sfn ../../../../../../..{inside} /a\n")


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize("word", ["--security=insecure", "--device=/dev/mem", "--network=host"])
def test_a_step_has_no_rights_that_the_dockerfile_gave_itself(context: Context, inside: Path, word: str) -> None:
    """Rights are granted by who asks for the build (CVE-2024-23653), whichever frontend the Dockerfile names."""
    look = "grep CapEff /proc/self/status >/got; readlink /proc/self/ns/net >>/got; head -c 1 /dev/mem >>/got"
    answer = context.build(f"# syntax=evil/frontend\nFROM box\nRUN {word} {look}; true\n")
    if answer.code == 0:
        rights, network = context.shown("cat /got").split("\n")[:2]
        assert not int(rights.split()[1], 16) >> 21 & 1  # CAP_SYS_ADMIN
        assert network != os.readlink("/proc/self/ns/net")


def forged(instruction: str) -> TinyImage:
    """Return an image that says of itself that it is what `instruction` makes of busybox, but is not."""
    real = tiny_image(layers=[{"f": b"forged"}])
    history = (*real.config.history[:1], History(created="2023-11-14T22:13:20Z", created_by=instruction))
    config = msgspec.structs.replace(real.config, history=history).encode()
    manifest = json.loads(real.manifest_bytes)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    data = json.dumps(manifest).encode()
    assert Manifest.decode(data)
    blobs = {**real.blobs, Digest.of(config): config, Digest.of(data): data}
    return TinyImage(Descriptor.of(media_types.OCI_MANIFEST, data), real.config, real.diff_ids, real.tars, blobs)


@pytest.mark.threat(14, BUILDS, against="kestrel")
@pytest.mark.parametrize(
    "form", ["RUN echo real >/f", "/bin/sh -c echo real >/f", "RUN /bin/sh -c echo real >/f # buildkit"]
)
def test_an_image_that_claims_to_be_a_step_s_result_is_not_taken_for_it(
    context: Context, inside: Path, form: str
) -> None:
    """Its history and parent are what a stranger wrote; a key is made of what this machine did (CVE-2024-24557)."""
    context.kestrel("load", stdin=oci_archive(forged(form), "forged:1"))
    assert context.build("FROM box\nRUN echo real >/f\n").code == 0
    assert context.shown("cat /f") == "real\n"


@pytest.mark.threat(14, BUILDS, against="kestrel")
def test_a_step_sees_nothing_of_the_builder(context: Context, inside: Path) -> None:
    look = "cat /proc/net/unix /proc/self/environ /proc/1/cmdline; ls /proc/self/fd"
    assert context.build(f"FROM box\nRUN ({look}) >/got 2>&1\n").code == 0
    seen = context.shown("cat /got")
    assert "KESTREL" not in seen
    assert seen.split("\n")[-4:-1] == ["1", "2", "3"]
