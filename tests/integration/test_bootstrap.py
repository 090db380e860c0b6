"""A base image from this machine's own apt sources, entered with chroot: the archive, its keys and gpgv are real."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kestrel.base.errors import KestrelError, NotFound, Unavailable
from kestrel.images.bootstrap import MINIMAL, Bootstrapped, Request, bootstrap
from kestrel.images.bootstrap import sources as apt

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: unpacks files of others and changes root"),
    pytest.mark.skipif(shutil.which("gpgv") is None, reason="needs gpgv: apt-get install gpgv"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bootstrapped:
    try:
        apt.read()
    except KestrelError as error:
        pytest.skip(f"no Debian sources on this machine: {error}")
    directory = tmp_path_factory.mktemp("bootstrap")
    try:
        return bootstrap(Request(variant=MINIMAL), cache=directory / "cache", target=directory / "out")
    except Unavailable as error:
        pytest.skip(f"no Debian archive in reach: {error}")


@pytest.fixture
def root(made: Bootstrapped, tmp_path: Path) -> Path:
    for layer in made.layers:
        with tarfile.open(layer.path) as tar:
            # Filters came with 3.11.4; what is extracted here was made and verified by us.
            trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            tar.extractall(tmp_path / "root", numeric_owner=True, **trusted)
    return tmp_path / "root"


def run(root: Path, script: str) -> str:
    command = ["chroot", root, "/bin/sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_programs_run_in_it_without_a_loader_cache(root: Path) -> None:
    assert not (root / "etc/ld.so.cache").exists()
    assert run(root, "bash -c 'echo $BASH_VERSION' | grep -c '^5'") == "1"
    assert run(root, "readlink /bin/sh; echo word | sed s/word/done/") == "dash\ndone"


def test_it_knows_its_users_and_what_is_installed(root: Path, made: Bootstrapped) -> None:
    assert run(root, "id -un; ls -ld /tmp | cut -c1-10") == "root\ndrwxrwxrwt"
    status = (root / "var/lib/dpkg/status").read_text()
    assert status.count("\nStatus: install ok installed\n") == len(made.layers[0].packages)


def test_an_unknown_package_is_answered_with_the_nearest_name(made: Bootstrapped, tmp_path: Path) -> None:
    cache = made.layers[0].path.parent.parent / "cache"
    with pytest.raises(NotFound, match="python3-pipp") as caught:
        bootstrap(Request(variant=MINIMAL, include=["python3-pipp"]), cache=cache, target=tmp_path)
    assert "python3-pip" in str(caught.value.hint)
