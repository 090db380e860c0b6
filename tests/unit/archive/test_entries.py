"""Reading tar: what GNU tar and Python's tarfile write, and what only an attacker would."""

import io
import re
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.archive import pax
from kestrel.archive.entries import Entry, Kind, TarReader, clean
from kestrel.base.errors import DataLoss, InvalidArgument, KestrelError
from kestrel.testing.images import tar_of

SECOND = 1_000_000_000


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(reader.data())) for entry in reader]


def python_tar(format_: int, *infos: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return buffer.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_python_writes_is_read(format_: int) -> None:
    long = "d" * 90 + "/" + "f" * 60
    data = python_tar(
        format_,
        info("./dir", type=tarfile.DIRTYPE, mode=0o1755, uid=5, gid=6, mtime=77),
        info(long, size=700, mode=0o4711),
        info("link", type=tarfile.SYMTYPE, linkname="../else"),
        info("hard", type=tarfile.LNKTYPE, linkname="./" + long[:80]),
        info("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    )
    (directory, _), (file, content), (link, _), (hard, _), (device, _) = read(data)
    assert (directory.name, directory.kind, directory.mode) == ("dir", Kind.DIRECTORY, 0o1755)
    assert (directory.uid, directory.gid, directory.mtime) == (5, 6, 77 * SECOND)
    assert (file.name, file.size, file.mode, content) == (long, 700, 0o4711, bytes(700))
    assert (link.kind, link.link) == (Kind.SYMLINK, "../else")
    assert (hard.kind, hard.link) == (Kind.HARDLINK, long[:80])
    assert (device.kind, device.major, device.minor) == (Kind.CHARACTER, 1, 3)


def test_long_links_big_ids_and_fractions_of_seconds_are_read() -> None:
    target = "t" * 300
    for format_ in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        ((entry, _),) = read(
            python_tar(format_, info("l" * 200, type=tarfile.SYMTYPE, linkname=target, uid=4_000_000_000))
        )
        assert (entry.name, entry.link, entry.uid) == ("l" * 200, target, 4_000_000_000)
    ((entry, _),) = read(python_tar(tarfile.PAX_FORMAT, info("t", mtime=12.5)))
    assert entry.mtime == 12_500_000_000


def test_names_that_are_not_utf8_come_through() -> None:
    ((entry, _),) = read(tar_of(Entry(name=b"caf\xe9".decode("utf-8", "surrogateescape"))))
    assert entry.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_an_archive_without_closing_blocks_ends_at_an_entry() -> None:
    assert len(read(tar_of((Entry(name="a"), b"x"))[: 2 * 512])) == 1


def test_what_follows_the_end_is_read_for_the_digest() -> None:
    source = io.BytesIO(tar_of(Entry(name="a")) + bytes(9 * 512))
    assert len(list(TarReader(source))) == 1
    assert source.read() == b""


def test_offsets_point_at_the_data() -> None:
    data = tar_of((Entry(name="n" * 150), b"first"), (Entry(name="b"), b"second" * 100))
    for entry, content in read(data):
        assert data[entry.offset : entry.offset + entry.stored] == content


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 600, 1023])
def test_a_truncated_archive_is_data_loss(cut: int) -> None:
    with pytest.raises(DataLoss):
        read(tar_of((Entry(name="a"), b"x" * 600))[:cut])


@pytest.mark.parametrize("name", ["..", "../x", "a/../b", "a/..", "a/../../b", "/..", "./../x"])
def test_a_name_that_climbs_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"the name of entry '{re.escape(name)}' goes up with `..`"):
        read(python_tar(tarfile.PAX_FORMAT, info(name)))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"/etc/x", "etc/x"),
        (b"./a", "a"),
        (b"a//b/./c/", "a/b/c"),
        (b"./", ""),
        (b".hidden", ".hidden"),
        (b"a..b", "a..b"),
    ],
)
def test_names_are_relative_and_plain(raw: bytes, name: str) -> None:
    assert clean(raw) == name


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ({"size": b"-1"}, "negative size"),
        ({"size": b"0x10"}, "unreadable number"),
        ({"uid": b"-5"}, "negative uid"),
        ({"mtime": b"soon"}, "unreadable time"),
        ({"path": b"a\0b"}, "has a zero byte"),
        ({"path": b"../x"}, r"entry '\.\./x' goes up with"),
        ({"GNU.sparse.size": b"10", "GNU.sparse.map": b"0,20"}, "contradicts"),
        ({"GNU.sparse.size": b"10", "GNU.sparse.map": b"5,1,0,1"}, "contradicts"),
        ({"GNU.sparse.size": b"10", "GNU.sparse.map": b"0"}, "odd sparse map"),
        ({"GNU.sparse.size": b"10", "GNU.sparse.map": b"0,5"}, "5 bytes but 0"),
        ({"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"10"}, "incomplete sparse map"),
    ],
)
def test_hostile_pax_records_are_refused(records: dict[str, bytes], word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        read(with_pax(pax.format_records(records)))


@pytest.mark.parametrize(
    "body", [b"x", b"99 a=b\n", b"5 a=b", b"6 a=bc", b"4 a\n ", b"0 a=b\n", b"9999999999999999999999 a=b\n"]
)
def test_records_of_wrong_length_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        read(with_pax(body))


def test_a_header_that_describes_gigabytes_of_headers_is_refused() -> None:
    data = bytearray(with_pax(b"6 a=b\n"))
    data[124:136] = b"77777777777\0"
    fix_sum(data)
    with pytest.raises(InvalidArgument, match="more than"):
        read(bytes(data))


def test_a_wrong_checksum_is_no_tar() -> None:
    data = bytearray(tar_of(Entry(name="a")))
    data[0] ^= 1
    with pytest.raises(InvalidArgument, match="checksum"):
        read(bytes(data))


def test_an_unknown_type_is_named() -> None:
    data = bytearray(tar_of(Entry(name="odd")))
    data[156:157] = b"Z"
    fix_sum(data)
    with pytest.raises(InvalidArgument, match="'odd' has the unknown tar type"):
        read(bytes(data))


def test_a_size_on_a_link_does_not_hide_the_next_entry() -> None:
    """Go's reader ignores it; if we took it as data, scanner and runtime would see different layers."""
    data = bytearray(tar_of(Entry(name="l", kind=Kind.SYMLINK, link="x"), Entry(name="next")))
    data[124:136] = b"00000001000\0"
    fix_sum(data)
    assert [entry.name for entry, _ in read(bytes(data))] == ["l", "next"]


@given(st.binary(max_size=2048))
def test_random_bytes_are_never_more_than_an_error(data: bytes) -> None:
    try:
        read(data)
    except KestrelError:
        pass


@given(st.data())
def test_damaged_archives_are_never_more_than_an_error(data: st.DataObject) -> None:
    archive = bytearray(tar_of((Entry(name="n" * 120, xattrs={"user.a": b"b"}), b"content"), Entry(name="z")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    for start in range(0, len(archive) - 1024, 512):
        if archive[start + 257 : start + 262] == b"ustar":
            fix_sum(archive, start)
    try:
        read(bytes(archive))
    except KestrelError:
        pass


ENTRIES = st.builds(
    Entry,
    name=st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
        min_size=1,
        max_size=6,
    )
    .map("/".join)
    .filter(lambda name: all(part not in (".", "..") for part in name.split("/"))),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**31), 2**34 - 2**31 - 1).map(lambda seconds: seconds * SECOND),
    xattrs=st.dictionaries(st.sampled_from(["user.a", "security.capability", "user.x=y"]), st.binary(max_size=80)),
)


@given(st.lists(st.tuples(ENTRIES, st.binary(max_size=1100)), max_size=4))
def test_what_is_written_is_read_back(members: list[tuple[Entry, bytes]]) -> None:
    found = read(tar_of(*members))
    assert [content for _, content in found] == [content for _, content in members]
    for (wrote, _), (got, _) in zip(members, found, strict=True):
        if "user.x=y" in wrote.xattrs:
            continue  # a pax key cannot hold "="; such a name does not survive, and no filesystem tool makes one
        for field in ("name", "kind", "mode", "uid", "gid", "mtime", "xattrs"):
            assert getattr(got, field) == getattr(wrote, field)


@given(st.lists(st.tuples(ENTRIES, st.binary(max_size=1100)), max_size=3))
def test_pythons_tarfile_reads_what_is_written(members: list[tuple[Entry, bytes]]) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(*members))) as tar:
        got = [(each.name, each.mode, each.uid, each.size) for each in tar]
    assert got == [(entry.name, entry.mode, entry.uid, len(content)) for entry, content in members]


def with_pax(body: bytes) -> bytes:
    head = bytearray(tar_of((Entry(name="pax"), body)))[:-1024]
    head[156:157] = b"x"
    fix_sum(head)
    return bytes(head) + tar_of(Entry(name="file"))


def fix_sum(data: bytearray, start: int = 0) -> None:
    data[start + 148 : start + 156] = b" " * 8
    total = sum(data[start : start + 512])
    data[start + 148 : start + 156] = b"%06o\0 " % total
