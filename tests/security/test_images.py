"""Images that mean harm: archives that climb, layers that speak to the kernel, manifests that are two things at once.

Run against a whole Kestrel: its builder, its store and its registry.
"""

import dataclasses
import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kestrel.archive.entries import Entry, Kind
from kestrel.oci import media_types
from kestrel.oci.config import RootFS
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.testing.images import oci_archive, tar_of, tiny_image
from kestrel.testing.instance import Instance

pytestmark = pytest.mark.root

SLIP = "tar slip"
WHITEOUTS = "whiteouts that are not"
LAYERS = "extended attributes, devices and set-user-ID in layers"
LABELS = "CVE-2026-53488, CVE-2026-53489, CVE-2026-53492, CVE-2026-50195: labels and log files that are obeyed"
CONFUSION = "CVE-2021-41190: documents that are two things, and bombs"
SECRET = "the host's secret\n"

Members = Callable[[str], tuple[Any, ...]]


def file(name: str, data: bytes = b"pwned\n", **more: Any) -> tuple[Entry, bytes]:
    return Entry(name=name, **more), data


def link(name: str, target: str) -> Entry:
    return Entry(name=name, kind=Kind.SYMLINK, mode=0o777, link=target)


def hard(name: str, target: str) -> Entry:
    return Entry(name=name, kind=Kind.HARDLINK, link=target)


UP = "../" * 12
SLIPS: dict[str, Members] = {
    "dots": lambda out: (file(f"{UP}{out}/pwned"),),
    "dots in the middle": lambda out: (file(f"a/b/{UP}{out}/pwned"),),
    "an absolute name": lambda out: (file(f"/{out}/pwned"),),
    "through a link": lambda out: (link("d", f"/{out}"), file("d/pwned")),
    "through a climbing link": lambda out: (link("d", f"{UP}{out}"), file("d/pwned")),
    "through a link to a link": lambda out: (link("e", "d"), link("d", f"/{out}"), file("e/pwned")),
    "through a link to the root": lambda out: (link("r", "/"), file(f"r/{out}/pwned")),
    "over a link": lambda out: (link("f", f"/{out}/secret"), file("f")),
    "a hard link": lambda out: (hard("h", f"/{out}/secret"), file("h")),
    "a climbing hard link": lambda out: (hard("h", f"{UP}{out}/secret"),),
    "a hard link through a link": lambda out: (link("d", f"/{out}"), hard("h", "d/secret")),
    "a hard link to a link": lambda out: (link("s", f"/{out}/secret"), hard("h", "s"), file("h")),
    "a directory that becomes a link": lambda out: (
        Entry(name="d", kind=Kind.DIRECTORY, mode=0o755), link("d", f"/{out}"), file("d/pwned")),
    "a whiteout outside": lambda out: (file(f"{UP}{out}/.wh.secret", b""),),
    "a whiteout through a link": lambda out: (link("d", f"/{out}"), file("d/.wh.secret", b"")),
}  # fmt: skip


def raw(*members: Any) -> bytes:
    """Return a tar with names as they are, which our own writer would refuse."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            entry, data = member if isinstance(member, tuple) else (member, b"")
            info = tarfile.TarInfo(entry.name)
            info.mode, info.linkname, info.size = entry.mode, entry.link, len(data)
            info.type = {
                Kind.SYMLINK: tarfile.SYMTYPE, Kind.HARDLINK: tarfile.LNKTYPE, Kind.DIRECTORY: tarfile.DIRTYPE,
            }.get(entry.kind, tarfile.REGTYPE)  # fmt: skip
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def untouched(outside: Path) -> None:
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.threat(11, SLIP, against="kestrel")
@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("door", ["layer", "import", "ADD"])
def test_an_archive_writes_and_reads_nothing_outside(kestrel: Instance, outside: Path, slip: str, door: str) -> None:
    data = raw(*SLIPS[slip](str(outside).lstrip("/")))
    if door == "layer":
        code = kestrel("load", stdin=oci_archive(tiny_image(layers=[data]), "slip:1"), code=None).code
    elif door == "import":
        code = kestrel("import", "-", "slip:1", stdin=data, code=None).code
    else:
        context = kestrel.base / "slip"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM box\nADD evil.tar /sub/dir/\n")
        (context / "evil.tar").write_bytes(data)
        code = kestrel("build", "-q", "-t", "slip:1", str(context), code=None).code
        shutil.rmtree(context)
    untouched(outside)
    if code == 0:
        look = f"cat /h /f /s /sub/dir/h /sub/dir/f /sub/dir/s /d/secret /sub/dir/d/secret {outside}/secret"
        if door != "import":
            assert SECRET not in kestrel("run", "--rm", "slip:1", "sh", "-c", look, code=None).out
        kestrel("rmi", "-f", "slip:1")
    untouched(outside)


# --- whiteouts ------------------------------------------------------------------------------------------------------


def listing(kestrel: Instance, *layers: bytes) -> "list[str] | None":
    """Return what a container of these layers sees below /w, None when they are refused."""
    archive = oci_archive(tiny_image(layers=layers), "wh:1")
    if kestrel("load", stdin=archive, code=None).code:
        return None
    answer = kestrel("run", "--rm", "wh:1", "sh", "-c", "cd /w && find . ! -name . | sort", code=None)
    kestrel("rmi", "-f", "wh:1")
    return answer.out.split() if answer.code == 0 else None


BELOW = raw(file("w/a/one"), file("w/a/two"), file("w/b"), file("w/c/x"), file("w/c/y"))
OTHERS = ["./a", "./a/one", "./a/two", "./b"]
WHOLE = ["./a", "./a/one", "./a/two", "./b", "./c", "./c/x", "./c/y"]
DIRECTORY = Entry(name="w/c", kind=Kind.DIRECTORY, mode=0o755)


@pytest.mark.threat(12, WHITEOUTS, against="kestrel")
@pytest.mark.parametrize(
    ("above", "seen"),
    [
        ((file("w/a/.wh.one", b""), file("w/.wh.b", b"")), ["./a", "./a/two", "./c", "./c/x", "./c/y"]),
        ((DIRECTORY, file("w/c/.wh..wh..opq", b""), file("w/c/new")), [*OTHERS, "./c", "./c/new"]),
        ((DIRECTORY, file("w/c/new"), file("w/c/.wh..wh..opq", b"")), [*OTHERS, "./c", "./c/new"]),
        ((file("w/.wh.c", b""), file("w/c/new")), [*OTHERS, "./c", "./c/new"]),
        ((file("w/c/new"), file("w/.wh.c", b"")), [*OTHERS, "./c", "./c/new"]),
        ((file("w/.wh.absent", b""),), WHOLE),
        ((file("w/.wh..wh.plnk", b""), file("w/.wh..wh.aufs", b"")), WHOLE),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_whiteout_hides_what_is_below_and_nothing_else(
    kestrel: Instance, above: tuple[Any, ...], seen: list[str]
) -> None:
    assert listing(kestrel, BELOW, raw(*above)) == seen


@pytest.mark.threat(12, WHITEOUTS, against="kestrel")
@pytest.mark.parametrize(
    "name", ["w/.wh.", "w/.wh..", "w/.wh...", ".wh..", ".wh...", "w/.wh.a/..", "w/.wh../b", ".wh."]
)
def test_a_whiteout_of_a_name_that_is_none_hides_nothing(kestrel: Instance, name: str) -> None:
    seen = listing(kestrel, BELOW, raw(file(name, b"")))
    assert seen is None or seen == WHOLE


# --- layers that speak to the kernel --------------------------------------------------------------------------------


@pytest.mark.threat(13, LAYERS, against="kestrel")
def test_attributes_for_the_kernel_s_own_use_are_not_taken_from_a_layer(kestrel: Instance) -> None:
    """They would make overlayfs show other files in a directory, hide files, or run a file's data from elsewhere."""
    secrets = raw(file("hidden/key", b"key"), file("plain", b"plain"), file("d/one"))
    xattrs = {
        "trusted.overlay.redirect": b"/hidden", "trusted.overlay.opaque": b"y", "trusted.overlay.metacopy": b"",
        "trusted.overlay.origin": b"x", "user.overlay.redirect": b"/hidden", "user.overlay.opaque": b"y",
        "trusted.overlay.whiteout": b"y", "user.overlay.whiteout": b"y", "security.selinux": b"evil_t",
        "security.ima": b"x", "trusted.other": b"x",
    }  # fmt: skip
    top = tar_of(
        Entry(name="d", kind=Kind.DIRECTORY, mode=0o755, xattrs=xattrs),
        (Entry(name="plain2", xattrs=xattrs), b"two"),
    )
    kestrel("load", stdin=oci_archive(tiny_image(layers=[secrets, top]), "x:1"))
    assert kestrel("run", "--rm", "x:1", "sh", "-c", "ls /d; cat /plain2").out == "one\ntwo"
    name = kestrel("run", "-d", "x:1", "sleep", "600").out.strip()
    root = f"/proc/{kestrel.inspect(name)['pid']}/root"
    for path in ("d", "plain2"):
        kept = set(os.listxattr(f"{root}/{path}"))
        assert not {key for key in kept if "overlay" in key or key == "security.ima"}


@pytest.mark.threat(13, LAYERS, against="kestrel")
def test_devices_of_a_layer_cannot_be_used(kestrel: Instance) -> None:
    nodes = [
        Entry(name=f"evil/{name}", kind=kind, mode=0o666, major=major, minor=minor)
        for name, kind, major, minor in (
            ("disk", Kind.BLOCK, 254, 0), ("sda", Kind.BLOCK, 8, 0), ("mem", Kind.CHARACTER, 1, 1),
            ("kmsg", Kind.CHARACTER, 1, 11), ("fuse", Kind.CHARACTER, 10, 229), ("tty", Kind.CHARACTER, 4, 1),
        )
    ]  # fmt: skip
    if kestrel("load", stdin=oci_archive(tiny_image(layers=[tar_of(*nodes)]), "dev:1"), code=None).code:
        return  # refused is as good
    script = "for f in /evil/*; do ( head -c 1 $f | wc -c; : >$f ) 2>/dev/null && echo opened $f; done; true"
    for flags in ((), ("--cap-add", "SYS_ADMIN"), ("--cap-add", "MKNOD")):
        said = kestrel("run", "--rm", *flags, "dev:1", "sh", "-c", script).out
        assert "opened" not in said
        assert "1" not in said.split()


@pytest.mark.threat(13, LAYERS, against="kestrel")
def test_set_user_id_gains_nothing_where_no_new_rights_are_wanted(kestrel: Instance) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    top = tar_of((Entry(name="su", mode=0o4755), busybox), (Entry(name="etc/alice", mode=0o644), b""))
    kestrel("load", stdin=oci_archive(tiny_image(layers=[top]), "suid:1"))
    words = ("run", "--rm", "-u", "1000:1000", "--security-opt", "no-new-privileges", "suid:1")
    assert "euid=0" not in kestrel(*words, "/su", "id", code=None).out
    # and the host's users cannot reach the program, wherever it is kept
    found = subprocess.run(
        ["find", str(kestrel.root), "-perm", "-4000"], user=65534, group=65534, capture_output=True, text=True
    )
    assert found.stdout == ""


# --- labels, logs, directories --------------------------------------------------------------------------------------


@pytest.mark.threat(21, LABELS, against="kestrel")
def test_a_label_is_never_a_program_a_device_or_a_path(kestrel: Instance, outside: Path) -> None:
    program = outside / "program"
    program.write_text(f"#!/bin/sh\ntouch {outside}/ran\n")
    program.chmod(0o755)
    keys = ("log_uri", "io.containerd.log", "io.kubernetes.cri.log-uri", "cdi.k8s.io/evil", "run.oci.hooks.stdout",
            "org.opencontainers.image.stopSignal", "io.katacontainers.config.hypervisor.path", "run.oci.handler",
            "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel", "kestrel.hook", "kestrel.log")  # fmt: skip
    values = (f"binary://{program}", f"file://{outside}/log", str(program), "evil.com/gpu=all")
    labels = {f"{key}": value for key in keys for value in values[:1]}
    labels |= {f"{key}.{n}": value for key in keys for n, value in enumerate(values)}
    kestrel("load", stdin=oci_archive(tiny_image(labels=labels), "label:1"))
    flags = [word for key, value in labels.items() for word in ("-l", f"{key}={value}")]
    assert kestrel("run", "--rm", *flags, "label:1", "echo", "fine").out == "fine\n"
    assert sorted(os.listdir(outside)) == ["program", "secret"]


@pytest.mark.threat(21, LABELS, against="kestrel")
def test_a_log_that_became_a_link_is_not_written_through(kestrel: Instance, outside: Path) -> None:
    name = kestrel("run", "-d", "box", "sh", "-c", "echo evil").out.strip()
    kestrel("wait", name)
    logs = [
        path for path in kestrel.root.rglob("*") if path.is_file() and path.suffix == ".log" and name[:12] in str(path)
    ]
    logs += [path for path in (kestrel.root / "containers").rglob("log*") if path.is_file()]
    assert logs
    for path in set(logs):
        path.unlink()
        path.symlink_to(outside / "secret")
    kestrel("start", name, code=None)
    kestrel("logs", name, code=None)
    assert (outside / "secret").read_text() == SECRET


@pytest.mark.threat(25, "CVE-2021-41091, CVE-2021-41103: directories that others can enter", against="kestrel")
def test_other_users_of_the_host_see_nothing_of_images_and_containers(kestrel: Instance) -> None:
    kestrel("run", "-d", "box", "sh", "-c", "echo mine >/mine; sleep 600")
    kestrel("run", "--rm", "-v", "private:/v", "box", "sh", "-c", "echo mine >/v/mine")
    kestrel("build", "-q", "-t", "mine", "-", stdin="FROM box\nRUN echo mine >/mine\n", code=None)
    for top in (kestrel.root, kestrel.run_directory):
        found = subprocess.run(
            ["find", str(top), "-mindepth", "1", "(", "-type", "f", "-o", "-type", "s", "-o", "-type", "d", ")"],
            user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
        )  # fmt: skip
        assert [line for line in found.stdout.splitlines() if os.access(line, os.F_OK)] == [], top
        assert not top.stat().st_mode & 0o066 or top.stat().st_mode & 0o077 == 0o011


# --- the registry ---------------------------------------------------------------------------------------------------


def put(kestrel: Instance, document: Any, kind: str, raw_body: "bytes | None" = None) -> int:
    """PUT a manifest; return the status."""
    body = json.dumps(document).encode() if raw_body is None else raw_body
    url = f"http://{kestrel.registry}/v2/evil/manifests/1"
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = {"mediaType": media_types.OCI_EMPTY, "size": 2, "digest": str(Digest.of(b"{}"))}
LIKE_A_MANIFEST = {"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": []}
LIKE_AN_INDEX = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}


@pytest.mark.threat(27, CONFUSION, against="kestrel")
@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({**LIKE_A_MANIFEST, "manifests": []}, MANIFEST),
        ({**LIKE_AN_INDEX, "layers": []}, INDEX),
        ({**LIKE_AN_INDEX, "config": EMPTY}, INDEX),
        (LIKE_A_MANIFEST, INDEX),
        (LIKE_AN_INDEX, MANIFEST),
        ({**LIKE_A_MANIFEST, "mediaType": INDEX}, MANIFEST),
        ({**LIKE_A_MANIFEST, "config": {**EMPTY, "size": -1}}, MANIFEST),
        ({**LIKE_A_MANIFEST, "config": {**EMPTY, "size": 2**64}}, MANIFEST),
        ({**LIKE_A_MANIFEST, "config": {**EMPTY, "digest": "sha256:../../../etc/passwd"}}, MANIFEST),
    ],
    ids=range(9),
)
def test_a_document_that_is_two_things_at_once_is_refused(kestrel: Instance, document: Any, kind: str) -> None:
    assert 400 <= put(kestrel, document, kind) < 500


@pytest.mark.threat(27, CONFUSION, against="kestrel")
@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 200_000, b"{%s}" % (b" " * (20 << 20)), b'{"schemaVersion":%s}' % (b"9" * 100_000)],
    ids=["lists", "objects", "spaces", "digits"],
)  # fmt: skip
def test_a_document_that_is_too_deep_or_too_big_is_refused(kestrel: Instance, body: bytes) -> None:
    assert 400 <= put(kestrel, None, MANIFEST, body) < 500


def bomb(size: int) -> bytes:
    """Return a gzipped tar of one file of `size` zeros, a thousandth as big: members of a MiB each."""
    info = tarfile.TarInfo("zeros")
    info.size = size
    zeros = gzip.compress(bytes(1 << 20), 9)
    return gzip.compress(info.tobuf()) + zeros * (size >> 20) + gzip.compress(bytes(1024))


@pytest.mark.threat(27, CONFUSION, against="kestrel", long=True)
def test_gigabytes_of_zeros_are_not_unpacked(kestrel: Instance) -> None:
    image = tiny_image()
    data = bomb(5 << 30)
    config = msgspec.structs.replace(image.config, rootfs=RootFS(diff_ids=(Digest.of(b"?"),)), history=()).encode()
    parts = Descriptor.of(media_types.OCI_CONFIG, config), Descriptor.of(media_types.layer_type("gzip"), data)
    manifest = Manifest.of(parts[0], [parts[1]]).encode()
    blobs = {Digest.of(blob): blob for blob in (config, data, manifest)}
    named = dataclasses.replace(image, manifest=Descriptor.of(media_types.OCI_MANIFEST, manifest), blobs=blobs)
    archive = oci_archive(named, "bomb:1")
    before = shutil.disk_usage(kestrel.root).used
    answer = kestrel("load", stdin=archive, code=None)
    if answer.code == 0:  # it is kept as it came, and unpacked when it is first wanted
        answer = kestrel("run", "--rm", "bomb:1", "true", code=None)
    assert answer.code != 0
    assert "Traceback" not in answer.err
    assert shutil.disk_usage(kestrel.root).used - before < 1 << 30
    assert kestrel("run", "--rm", "box", "echo", "alive").out == "alive\n"


# --- sockets --------------------------------------------------------------------------------------------------------


@pytest.mark.threat(16, "CVE-2020-15257: the shim's socket", against="kestrel")
def test_a_container_in_the_host_s_network_reaches_no_socket_of_ours(kestrel: Instance) -> None:
    """Abstract sockets belong to the network namespace, and have no owner; ours have a path, and are root's."""
    kestrel("run", "-d", "box", "sleep", "600")
    lines = kestrel("run", "--rm", "--network", "host", "box", "cat", "/proc/net/unix").out.splitlines()
    names = [line.split()[-1] for line in lines if len(line.split()) == 8]
    assert names
    assert not [name for name in names if name.startswith("@") and ("kestrel" in name or kestrel.name in name)]
    probe = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])"
    ours = [path for path in kestrel.run_directory.rglob("*") if path.is_socket()]
    assert len(ours) >= 2  # the daemon's, and the shim's of the first container
    for path in ours:
        assert not path.stat().st_mode & 0o077, path
        assert not path.parent.stat().st_mode & 0o066, path
        done = subprocess.run(["/usr/bin/python3", "-c", probe, path], user=65534, group=65534, capture_output=True)
        assert b"PermissionError" in done.stderr, path
        assert subprocess.run(["/usr/bin/python3", "-c", probe, path]).returncode == 0, "nobody listens"
