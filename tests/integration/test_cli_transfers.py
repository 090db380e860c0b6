"""save, load, export, import and commit through the command line, checked by tar, skopeo and podman."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance, wait_until

pytestmark = pytest.mark.root


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name.rstrip("/"): member for member in tar}


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_saved_is_loaded_elsewhere(platform: Instance, tmp_path: Path) -> None:
    platform("tag", "box", "box:saved")
    identity = platform("images", "-q", "box:saved").out
    archive = tmp_path / "box.tar"
    assert platform("save", "-o", str(archive), "box:saved").out == ""
    with platform.start("save", "box:saved") as process:
        assert process.communicate()[0] == archive.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["box.tar"]
    platform("rmi", "box:saved")
    assert "box:saved" in platform("load", "-i", str(archive)).out.split()
    assert platform("images", "-q", "box:saved").out == identity
    loaded = platform("load", "--json", stdin=archive.read_bytes()).json()
    assert "box:saved" in loaded[0]["names"]


@pytest.mark.clients
@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_skopeo_reads_what_is_saved_in_both_forms_and_we_what_it_writes(platform: Instance, tmp_path: Path) -> None:
    archive = tmp_path / "box.tar"
    platform("save", "-o", str(archive), "box")
    for form in (f"oci-archive:{archive}", f"docker-archive:{archive}"):
        assert json.loads(skopeo("inspect", "--config", form))["config"]["Cmd"] == ["sh"]
    theirs = tmp_path / "theirs.tar"
    skopeo("copy", f"oci-archive:{archive}", f"docker-archive:{theirs}:theirs:1")
    assert platform("load", "-i", str(theirs)).out == "theirs:1\n"
    assert platform("run", "--rm", "theirs:1", "echo", "works").out == "works\n"


def test_a_container_is_exported_with_what_it_wrote_and_without_what_is_mounted(
    platform: Instance, tmp_path: Path
) -> None:
    script = "echo new > /new; rm /etc/group; mkdir -p /d; chown 5:6 /d; echo v > /v/in-volume; sleep 600"
    name = platform("run", "-d", "-v", "export-test:/v", "box", "sh", "-c", script).out.strip()
    wait_until(lambda: platform("exec", name, "cat", "/v/in-volume", code=None).code == 0)
    archive = tmp_path / "files.tar"
    platform("export", "-o", str(archive), name)
    found = members(archive)
    assert "new" in found
    assert "bin/busybox" in found
    assert "etc/group" not in found
    assert "v/in-volume" not in found
    assert (found["d"].uid, found["d"].gid) == (5, 6)
    assert platform("exec", name, "cat", "/new").out == "new\n"  # it goes on, and can still write
    platform("exec", name, "sh", "-c", "echo more >> /etc/passwd")
    identity = platform("import", str(archive), "files:1").out
    assert identity == "files:1\n"
    assert platform("run", "--rm", "files:1", "/bin/busybox", "cat", "/new").out == "new\n"


def test_a_container_becomes_an_image_that_starts_as_it_did(platform: Instance) -> None:
    platform("run", "--name", "origin", "-e", "WHO=me", "box", "sh", "-c", "echo kept > /kept; cat /kept; echo $WHO")
    identity = platform("commit", "-m", "kept a file", "origin", "kept:1").out.strip()
    assert platform("run", "--rm", "kept:1").out == "kept\nme\n"
    document = platform("inspect", "kept:1").json()[0]
    assert document["id"] == identity
    assert document["config"]["history"][-1]["comment"] == "kept a file"
    differs = platform("image", "diff", "box", "kept:1", code=1)
    assert "+ /kept\n" in differs.out
    assert platform("image", "diff", "box", "box").out == ""
    platform("rm", "origin")
    assert platform("run", "--rm", "kept:1", "cat", "/kept").out == "kept\n"


def test_what_is_no_archive_is_refused_with_a_sentence(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no tar")
    refused = platform("load", "-i", str(tmp_path / "text"), code=1)
    assert refused.code == 1
    assert "error:" in refused.err
    assert "Traceback" not in refused.err
    missing = platform("save", "-o", str(tmp_path / "out.tar"), "no-such-image", code=1)
    assert "no such image" in missing.err
    assert not list(tmp_path.glob("*out.tar*"))
    assert "no such file" in platform("load", "-i", str(tmp_path / "nothing"), code=1).err
