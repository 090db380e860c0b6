"""Layers without unpacking: what the kernel shows of an index is what unpacking the tar would have left.

Two judges. GNU tar, for whole trees in each of its formats; and our own unpacking, itself held against GNU tar and
overlayfs elsewhere, for entries no sane tar has: the same tree, or the same refusal.
"""

import io
import os
import random
import shutil
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kestrel.archive.apply import apply
from kestrel.archive.entries import Entry, Kind, TarReader
from kestrel.archive.erofs import write_index
from kestrel.archive.layertree import LayerTree
from kestrel.archive.trees import remove_tree
from kestrel.archive.writer import header
from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.linux.mounts import open_rootfs, opened
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.testing.images import tar_of
from kestrel.testing.trees import listing, make_tree

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECOND = 1_000_000_000
BRISK = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
MANY = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))


def index(work: Path, tar: Path) -> int:
    """Index a tar and mount it; returns a descriptor of its root."""
    tree = LayerTree()
    with tar.open("rb", buffering=0) as file:
        for entry in TarReader(file):
            tree.add(entry)
        place = work / "index"
        with place.open("wb", buffering=0) as out:
            write_index(tree.top, file.fileno(), out.fileno())
    return open_rootfs(Rootfs(lowers=(Lower(kind="erofs", path=str(place), data=str(tar)),)))


def opener(name: str, root: int) -> BinaryIO:
    """Open a file of a mounted root."""
    return open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root), "rb")


def shown(work: Path, *members: "Entry | tuple[Entry, bytes]", times: bool = True) -> "dict[str, tuple[object, ...]]":
    """Return what a mount of these entries shows."""
    (work / "tar").write_bytes(tar_of(*members))
    with opened(index(work, work / "tar")) as root:
        return listing(root, overlay=True, top=True, times=times)


@pytest.mark.parametrize("format_", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
@pytest.mark.parametrize("sparse", ["", "0.0", "0.1", "1.0"])
@BRISK
@given(seed=st.integers(0, 2**32))
def test_what_gnu_tar_packs_shows_as_gnu_tar_unpacks_it(
    tmp_path_factory: pytest.TempPathFactory, format_: str, sparse: str, seed: int
) -> None:
    if sparse and format_ in ("ustar", "v7"):
        return  # these have no sparse files
    work = tmp_path_factory.mktemp("erofs")
    try:
        for name in ("source", "theirs"):
            (work / name).mkdir()
        make_tree(work / "source", random.Random(seed))
        command = ["tar", "-C", work / "source", f"--format={format_}", "-cf", work / "a.tar"]
        if format_ in ("pax", "posix"):
            command += ["--xattrs", "--xattrs-include=user.*"]
        if sparse:
            command += ["-S"] + ([f"--sparse-version={sparse}"] if format_ in ("pax", "posix") else [])
        packed = subprocess.run([*command, "."], check=False, capture_output=True)
        if format_ in ("pax", "posix", "gnu", "oldgnu"):
            assert packed.returncode == 0  # the older ones leave out what they cannot say, and complain
        options = ["--xattrs", "--xattrs-include=user.*", "--numeric-owner", "-p"]
        subprocess.run(["tar", "-C", work / "theirs", *options, "-xf", work / "a.tar"], check=True, capture_output=True)
        with opened(index(work, work / "a.tar")) as root:
            assert listing(root, top=True) == listing(work / "theirs", top=True)
    finally:
        shutil.rmtree(work)


PARTS = st.sampled_from(
    4 * ["a", "b", "c"]
    + ["a", "b", "c", "up", "abs", "n" * 255, "é\udce9", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.x"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(
    NAMES, NAMES, st.sampled_from(["..", "/", "/b", "../a", "a/../..", "loop", "t" * 600, "t" * 4095, "."])
)
VALUES = st.binary(max_size=40)
XATTRS = st.dictionaries(
    st.sampled_from(
        [
            "user.a",
            "user." + "x" * 200,
            "trusted.b",
            "security.capability",
            "security.selinux",
            "trusted.overlay.opaque",
            "system.posix_acl_default",
            "user.",
            "odd.name",
            "security.ima",
        ]
    ),
    VALUES | st.just(bytes.fromhex("0100000200200000000000000000000000000000")),
    max_size=4,
)


def acl(*entries: "tuple[int, int, int]") -> bytes:
    return b"\x02\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@st.composite
def members(draw: st.DrawFn) -> "Entry | tuple[Entry, bytes]":
    kind = draw(st.sampled_from([Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.DIRECTORY, *Kind]))
    entry = Entry(
        name=draw(NAMES) if draw(st.integers(0, 20)) else "",
        kind=kind,
        mode=draw(st.sampled_from([0o644, 0o755, 0o4755, 0o1777, 0, 0o2640])),
        uid=draw(st.sampled_from([0, 7, 70_000, 2**32 - 2])),
        gid=draw(st.sampled_from([0, 7, 70_000])),
        mtime=draw(st.sampled_from([0, -5, 1_700_000_000, 2**33])) * SECOND,
        link=draw(TARGETS if kind is Kind.SYMLINK else NAMES) if kind in (Kind.SYMLINK, Kind.HARDLINK) else "",
        major=draw(st.sampled_from([0, 1, 300])) if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
        minor=draw(st.sampled_from([0, 3, 70_000])) if kind in (Kind.CHARACTER, Kind.BLOCK) else 0,
        xattrs=draw(XATTRS) if draw(st.booleans()) else {},
    )
    return (entry, draw(st.sampled_from([b"", b"x", bytes(512), b"y" * 513]))) if kind is Kind.FILE else entry


def outcome(work: Path, tar: bytes) -> "tuple[object, object]":
    """Return what unpacking leaves and what the index shows; a refusal is its sentence."""
    (work / "fs").mkdir()
    (work / "fs").chmod(0o755)
    (work / "tar").write_bytes(tar)
    unpacked: object
    mounted: object
    try:
        apply(io.BytesIO(tar), work / "fs")
        unpacked = listing(work / "fs", overlay=True, top=True)
    except KestrelError as error:
        unpacked = error.message
    try:
        with opened(index(work, work / "tar")) as root:
            mounted = listing(root, overlay=True, top=True)
    except KestrelError as error:
        mounted = error.message
    return unpacked, mounted


def timeless(unpacked: object, mounted: object) -> "tuple[object, object]":
    """Leave out times of what no entry made (parents, whiteouts): the moment of unpacking there, an entry's here."""
    if isinstance(unpacked, dict) and isinstance(mounted, dict):
        now = time.time_ns()
        for path in unpacked.keys() & mounted.keys():
            if stat.S_ISCHR(unpacked[path][0]) and unpacked[path][4] == mounted[path][4] == 0:
                unpacked[path] = mounted[path]  # a whiteout is one whoever owns it
            if abs(unpacked[path][3] - now) < 3600 * SECOND:
                unpacked[path] = (*unpacked[path][:3], 0, *unpacked[path][4:])
                mounted[path] = (*mounted[path][:3], 0, *mounted[path][4:])
    return unpacked, mounted


@MANY
@given(entries=st.lists(members(), min_size=1, max_size=12))
def test_whatever_the_entries_the_mount_is_what_unpacking_leaves_or_both_refuse(
    tmp_path_factory: pytest.TempPathFactory, entries: "list[Entry | tuple[Entry, bytes]]"
) -> None:
    work = tmp_path_factory.mktemp("erofs")
    try:
        unpacked, mounted = timeless(*outcome(work, tar_of(*entries)))
        assert mounted == unpacked
    finally:
        remove_tree(work)


def test_an_acl_decides_the_mode_and_one_that_says_no_more_is_not_kept(tmp_path: Path) -> None:
    none = 0xFFFFFFFF
    plain = acl((1, 6, none), (4, 4, none), (0x20, 0, none))
    named = acl((1, 7, none), (2, 6, 1000), (4, 0, none), (0x10, 5, none), (0x20, 1, none))
    odd = acl((1, 7, none), (2, 6, 1000), (4, 0, none), (0x20, 1, none))
    entries = [
        (Entry(name=name, mode=0o4777, xattrs={"system.posix_acl_access": value}), b"x")
        for name, value in (("plain", plain), ("named", named), ("odd", odd))
    ] + [Entry(name="d", kind=Kind.DIRECTORY, mode=0o755, xattrs={"system.posix_acl_default": named})]
    unpacked, mounted = timeless(*outcome(tmp_path, tar_of(*entries)))
    assert mounted == unpacked
    assert isinstance(mounted, dict)
    assert mounted["named"][0] == stat.S_IFREG | 0o4751
    assert mounted["named"][7] == {"system.posix_acl_access": named}
    assert mounted["d"][7] == {"system.posix_acl_default": named}
    assert not mounted["plain"][7]


def test_ten_thousand_names_of_every_length_are_found_one_by_one(tmp_path: Path) -> None:
    names = [f"d/{number:05}" + "x" * (number % 240) for number in range(10_000)]
    tar = tar_of(*[(Entry(name=name), name.encode()) for name in names])
    (tmp_path / "tar").write_bytes(tar)
    with opened(index(tmp_path, tmp_path / "tar")) as root:
        for name in names[::7]:
            with open(os.open(name, os.O_RDONLY, dir_fd=root), "rb") as file:
                assert file.read() == name.encode()
        assert sorted(os.listdir(f"/proc/self/fd/{root}/d")) == sorted(name[2:] for name in names)


def test_data_beyond_four_gib_is_found(tmp_path: Path) -> None:
    """A tar of 9 GiB, most of it a hole of the disk's."""
    big = 9 * 1024**3 + 7
    with (tmp_path / "tar").open("wb") as file:
        first = file.write(header(Entry(name="big", size=big)))
        file.seek(big - 4, os.SEEK_CUR)
        file.write(b"tail")
        second = file.seek(-big % 512, os.SEEK_CUR) + 512
        file.write(tar_of((Entry(name="after"), b"still here")))
    tree = LayerTree()
    with (tmp_path / "tar").open("rb", buffering=0) as tar, (tmp_path / "index").open("wb", buffering=0) as out:
        for entry in (Entry(name="big", size=big, offset=first), Entry(name="after", size=10, offset=second)):
            tree.add(entry)
        write_index(tree.top, tar.fileno(), out.fileno())
    lower = Lower(kind="erofs", path=str(tmp_path / "index"), data=str(tmp_path / "tar"))
    with opened(open_rootfs(Rootfs(lowers=(lower,)))) as root:
        with open(os.open("big", os.O_RDONLY, dir_fd=root), "rb") as file:
            assert file.seek(0, os.SEEK_END) == big
            file.seek(big - 4)
            assert file.read() == b"tail"
        with open(os.open("after", os.O_RDONLY, dir_fd=root), "rb") as file:
            assert file.read() == b"still here"


SPARSE = [
    ("aligned", 1 << 20, [(0, 512), (4096, 1024), (1 << 19, 512)]),
    ("to the end", 100_001, [(512, 512), (99_840, 161)]),
    ("not aligned", 10_000, [(1, 3), (513, 700), (5000, 5000)]),
    ("only a hole", 1 << 33, []),
    ("ends in a hole", (1 << 20) + 5, [(1024, 512)]),
    ("a terabyte", 1 << 40, [(0, 512), (1 << 39, 4096), ((1 << 40) - 512, 512)]),
    ("a terabyte and odd", (1 << 40) + 3, [(7, 500), ((1 << 39) + 1, 5), ((1 << 39) + 9, 5)]),
]


@pytest.mark.parametrize(("size", "spans"), [each[1:] for each in SPARSE], ids=[each[0] for each in SPARSE])
def test_sparse_files_have_their_data_where_it_belongs_and_zeros_elsewhere(
    tmp_path: Path, size: int, spans: "list[tuple[int, int]]"
) -> None:
    data = random.Random(1).randbytes(sum(length for _, length in spans))
    (tmp_path / "tar").write_bytes(tar_of((Entry(name="padding"), b"p" * 700), (Entry(name="s"), data)))
    tree = LayerTree()
    offset = 512 + 1024 + 512
    tree.add(Entry(name="s", size=size, stored=len(data), offset=offset, sparse=tuple(spans)))
    with (tmp_path / "tar").open("rb", buffering=0) as tar, (tmp_path / "index").open("wb", buffering=0) as out:
        write_index(tree.top, tar.fileno(), out.fileno())
    assert (tmp_path / "index").stat().st_blocks * 512 < 16 * 1024 * 1024
    lower = Lower(kind="erofs", path=str(tmp_path / "index"), data=str(tmp_path / "tar"))
    with opened(open_rootfs(Rootfs(lowers=(lower,)))) as root, opener("s", root) as file:
        assert file.seek(0, os.SEEK_END) == size
        at = 0
        for start, length in spans:
            low, high = max(0, start - 300), min(size, start + length + 300)
            file.seek(low)
            expected = bytearray(high - low)
            inner = 0
            for other, more in spans:
                piece = data[inner : inner + more]
                inner += more
                for position, byte in enumerate(piece, other):
                    if low <= position < high:
                        expected[position - low] = byte
            assert file.read(high - low) == expected
            at += length


def test_what_many_files_have_in_common_is_kept_once(tmp_path: Path) -> None:
    label = {"trusted.label": b"L" * 3000}
    many = [Entry(name=f"f{number}", xattrs={**label, "user.n": b"%d" % number}) for number in range(500)]
    tree = shown(tmp_path, *[(entry, b"") for entry in many])
    assert all(tree[e.name][7] == e.xattrs for e in many)
    assert (tmp_path / "index").stat().st_size < 200_000


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name="f", xattrs={"user." + "n" * 251: b""}),
        Entry(name="f", xattrs={"user.big": bytes(65_536)}),
        Entry(name="f", xattrs={"user.\0": b""}),
        Entry(name="dev", kind=Kind.BLOCK, major=4096, minor=1),
    ],
)
def test_what_no_file_can_have_is_refused_by_both(tmp_path: Path, entry: Entry) -> None:
    tree = LayerTree()
    with pytest.raises(InvalidArgument) as ours:
        tree.add(entry)
    (tmp_path / "fs").mkdir()
    with pytest.raises(InvalidArgument) as theirs:
        apply(io.BytesIO(tar_of((entry, b"") if entry.kind is Kind.FILE else entry)), tmp_path / "fs")
    assert ours.value.message == theirs.value.message


def damaged(tar: bytes, chooser: random.Random) -> bytes:
    """Change bytes of a tar, mostly of its headers, and make the checksums right again."""
    data = bytearray(tar)
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(chooser.randint(1, 6)):
        at = chooser.choice(headers) + chooser.choice(
            [0, 1, 100, 108, 124, 130, 136, 156, 157, 329, 337, 345, 482, 483]
        )
        if chooser.random() < 0.2:
            at = chooser.randrange(len(data))
        data[at] = chooser.choice(
            [0, 0x20, 0x2E, 0x2F, 0x30 + chooser.randrange(10), 0x80, 0xFF, chooser.randrange(256)]
        )
    for at in headers:
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data[: chooser.randrange(len(data))] if chooser.random() < 0.1 else data)


@MANY
@given(seed=st.integers(0, 2**32), format_=st.sampled_from(["gnu", "pax"]))
def test_a_damaged_tar_is_refused_or_understood_alike(
    tmp_path_factory: pytest.TempPathFactory, seed: int, format_: str
) -> None:
    work, chooser = tmp_path_factory.mktemp("damaged"), random.Random(seed)
    try:
        (work / "source").mkdir()
        make_tree(work / "source", chooser)
        command = ["tar", "-C", work / "source", f"--format={format_}", "-S", "-cf", "-", "."]
        packed = subprocess.run(command, check=True, capture_output=True).stdout
        unpacked, mounted = timeless(*outcome(work, damaged(packed, chooser)))
        assert mounted == unpacked
    finally:
        remove_tree(work)
