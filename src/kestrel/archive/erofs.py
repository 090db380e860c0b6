"""Writes an EROFS index of a plain tar: a small filesystem image whose files' bytes are the tar's own.

The kernel mounts the index with the tar as its second device (fs/erofs/data.c, `erofs_map_dev`). Blocks have 512
bytes, the tar's unit, so every member's data begins at a block of the tar and nothing is copied or aligned:

    index   0     1024          1152          1536
            |  -  | superblock | device slot | inodes, each with its xattrs and short tails | xattrs of several |
            | blocks of big directories | copies for sparse files whose holes do not fall on blocks             |
    tar     begins right behind, at block `uniaddr` of the one address space both share

An ordinary file is an inode of 64 bytes with the block it begins at. A sparse one has a table of chunks (8 bytes
each), some in the tar and some holes. A directory is a list of sorted blocks of 512 bytes: entries of 12 bytes, then
the names. Its last block, like a symbolic link's target, lies behind its inode where it fits into the same block.
Formats: include/uapi and fs/erofs/erofs_fs.h in Linux, Documentation/filesystems/erofs.rst.

Packing is three passes over all inodes: order (breadth first, so that listing a directory reads one stretch), places,
bytes. 10,000 files take tens of milliseconds; what costs is Python's loop, so each pass does little for each inode.
"""

import os
import stat
from collections import Counter
from itertools import pairwise
from struct import Struct
from typing import Final

from kestrel.archive.layertree import Inode
from kestrel.base.errors import InvalidArgument

BLOCK: Final = 512
_BLOCK_BITS: Final = 9
_MAGIC: Final = 0xE0F5E1E2
_SUPER_AT: Final = 1024
_SLOT_AT: Final = 1152
_INODES_AT: Final = 1536
_MTIME: Final = 0x2  # feature_compat: times are of modification
_CHUNKED: Final = 0x4  # feature_incompat
_DEVICES: Final = 0x8
_PLAIN, _INLINE, _CHUNKS = 0x1, 0x5, 0x9  # i_format: an extended inode (1) with layout 0, 2 or 4
_INODE: Final = Struct("<HHHHQIIIIqII16x")
_SUPER: Final = Struct("<IIIBBHQQIIII16s16sIHHHBBIQB3xIQ8x")
_SLOT: Final = Struct("<64sIIIH50x")
_ENTRY: Final = Struct("<QHBx")
_CHUNK: Final = Struct("<HHI")
_HOLE: Final = 0xFFFFFFFF
_CHUNK_INDEXES: Final = 0x20
_CHUNK_BITS_LIMIT: Final = 31
_CHUNKS_LIMIT: Final = 1 << 20
"""Entries of one sparse file's table; a file with more is given bigger chunks, and copies where they are mixed."""
_BLOCKS_LIMIT: Final = 0xFFFFFFF0
_FILE_LIMIT: Final = 1 << 44
"""The biggest file ext4 holds with blocks of 4 KiB, and so the biggest a tar can have been made of."""
_XATTR_PREFIXES: Final = (
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("user.", 1),
    ("trusted.", 4),
    ("security.", 6),
)
_XATTR_HEADER: Final = 12
_XATTR_AREA_LIMIT: Final = 0xFFFF * 4
_SHARED_LIMIT: Final = 255
_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}
_Listing = list[tuple[bytes, Inode]]


def write_index(top: Inode, tar: int, index: int) -> int:
    """Write the index of the tree to the empty file `index`; returns its bytes. Both are descriptors.

    `tar` is the plain tar the tree was read from. Raises InvalidArgument for what the format cannot hold.
    """
    return _Image(top, tar, index).write()


def top_of(path: "str | os.PathLike[str]") -> tuple[int, int, int]:
    """Return mode, uid and gid of the root directory of an index that `write_index` wrote."""
    with open(path, "rb", buffering=0) as file:
        head = os.pread(file.fileno(), 128, _SUPER_AT)
        inode = os.pread(file.fileno(), _INODE.size, _SUPER.unpack(head)[5] << 5)
    _, _, mode, _, _, _, _, uid, gid, *_ = _INODE.unpack(inode)
    return stat.S_IMODE(mode), uid, gid


class _Image:
    def __init__(self, top: Inode, tar: int, index: int) -> None:
        self._top = top
        self._tar = tar
        self._tar_blocks = -(-os.fstat(tar).st_size // BLOCK)
        self._index = index
        self._inodes: list[Inode] = []
        self._listings: dict[Inode, _Listing] = {}
        self._xattrs: dict[Inode, bytes] = {}
        self._shared = b""
        self._blocks: dict[Inode, list[int]] = {}  # where each block of a directory's list of entries begins in it
        self._outside: dict[Inode, tuple[int, int]] = {}  # block and bytes of data that has no room in its inode
        self._tables: dict[Inode, _Chunks] = {}
        self._features = _DEVICES

    def write(self) -> int:
        self._order()
        self._gather_xattrs()
        end = self._place()
        shared_at = -(-end // BLOCK)
        first = shared_at + -(-len(self._shared) // BLOCK)
        after = self._place_outside(first)
        blocks = self._place_copies(after)
        if blocks + self._tar_blocks > _BLOCKS_LIMIT:
            raise InvalidArgument("the layer is bigger than the 2 TiB that can be mounted without unpacking")
        image = bytearray(after * BLOCK)
        self._pack(image, blocks)
        image[shared_at * BLOCK : shared_at * BLOCK + len(self._shared)] = self._shared
        self._pack_super(image, blocks, shared_at)
        os.ftruncate(self._index, blocks * BLOCK)
        _write_at(self._index, image, 0)
        return blocks * BLOCK

    # -- pass one: in which order

    def _order(self) -> None:
        inodes, listings = self._inodes, self._listings
        inodes.append(self._top)
        self._top.links = 1
        for inode in inodes:
            if inode.children is None:
                continue
            listing = [(name.encode("utf-8", "surrogateescape"), child) for name, child in inode.children.items()]
            listing.append((b".", inode))
            listing.append((b"..", inode.parent or inode))
            listing.sort(key=_name)
            listings[inode] = listing
            for child in inode.children.values():
                if not child.links:
                    inodes.append(child)
                child.links += 1
                if child.children is not None:
                    inode.links += 1
            inode.links += 1

    # -- pass two: where everything goes

    def _place(self) -> int:
        """Give every inode its number, which is its place in units of 32 bytes; returns where the last one ends."""
        at, xattrs, listings = _INODES_AT, self._xattrs, self._listings
        for inode in self._inodes:
            size = 64
            if inode.xattrs:
                size += len(xattrs[inode])
            if inode.children is not None:
                tail = self._divide(inode, listings[inode])
            elif inode.link:
                inode.size = tail = len(inode.link.encode("utf-8", "surrogateescape"))
            elif inode.sparse is not None:
                chunks = self._tables[inode] = _chunks(inode)
                inode.nid = at >> 5
                at += -(-size // 8) * 8 + 8 * chunks.count
                at += -at % 32
                continue
            else:
                inode.nid = at >> 5
                at += size if size == 64 else -(-size // 32) * 32
                continue
            if size + tail > BLOCK:
                self._outside[inode] = (0, inode.size)
                tail = 0
            elif (at % BLOCK) + size + tail > BLOCK:
                at += -at % BLOCK  # a tail must not cross into another block
            inode.nid = at >> 5
            at += size + tail
            at += -at % 32
        return at

    def _divide(self, inode: Inode, listing: _Listing) -> int:
        """Cut a directory into blocks; returns the bytes in the last one."""
        starts, room, used = [0], BLOCK, 0
        for number, (name, _) in enumerate(listing):
            need = 12 + len(name)
            if used + need > room:
                starts.append(number)
                used = 0
            used += need
        self._blocks[inode] = starts
        inode.size = (len(starts) - 1) * BLOCK + used
        return used

    def _place_outside(self, block: int) -> int:
        """Place what does not lie behind its inode, from `block` on; returns the first block after it."""
        outside = self._outside
        for inode, (_, size) in outside.items():
            outside[inode] = (block, size)
            block += -(-size // BLOCK)
        for inode, starts in self._blocks.items():
            if len(starts) > 1 and inode not in outside:
                outside[inode] = (block, (len(starts) - 1) * BLOCK)
                block += len(starts) - 1
        return block

    def _place_copies(self, block: int) -> int:
        for inode, chunks in self._tables.items():
            if inode.size > _FILE_LIMIT:
                raise InvalidArgument(f"a sparse file of {inode.size} bytes is bigger than any file can be")
            block = chunks.place(inode, block)
        return block

    # -- pass three: the bytes

    def _pack(self, image: bytearray, blocks: int) -> None:
        pack, xattrs, outside, format_of = _INODE.pack_into, self._xattrs, self._outside, stat.S_IFMT
        for number, inode in enumerate(self._inodes, 1):
            at = inode.nid << 5
            layout, where, count = _PLAIN, 0, 0
            if inode.xattrs:
                area = xattrs[inode]
                count = (len(area) - _XATTR_HEADER) // 4 + 1
                image[at + 64 : at + 64 + len(area)] = area
            if inode.children is not None or inode.link:
                data = self._data(inode)
                where, held = outside.get(inode, (0, 0))
                if held:
                    image[where * BLOCK : where * BLOCK + held] = data[:held]
                if held < len(data):
                    layout = _INLINE
                    tail = at + 64 + (len(xattrs[inode]) if inode.xattrs else 0)
                    image[tail : tail + len(data) - held] = data[held:]
            elif inode.sparse is not None:
                layout, where = _CHUNKS, self._pack_chunks(image, at, inode)
            elif format_of(inode.mode) == stat.S_IFREG:
                where = blocks + (inode.offset >> _BLOCK_BITS) if inode.size else 0
            else:
                where = inode.device
            pack(
                image,
                at,
                layout,
                count,
                inode.mode,
                0,
                inode.size,
                where,
                number,
                inode.uid,
                inode.gid,
                inode.mtime // 1_000_000_000,
                inode.mtime % 1_000_000_000,
                inode.links,
            )

    def _data(self, inode: Inode) -> bytes:
        if inode.children is None:
            return inode.link.encode("utf-8", "surrogateescape")
        listing, starts = self._listings[inode], self._blocks[inode]
        if len(starts) == 1:
            return _directory_block(listing)
        parts = [_directory_block(listing[start:end]).ljust(BLOCK, b"\0") for start, end in pairwise(starts)]
        return b"".join(parts) + _directory_block(listing[starts[-1] :])

    def _pack_chunks(self, image: bytearray, at: int, inode: Inode) -> int:
        chunks = self._tables[inode]
        self._features |= _CHUNKED
        start = at + 64 + (len(self._xattrs[inode]) if inode.xattrs else 0)
        start += -start % 8
        image[start : start + 8 * chunks.count] = chunks.table()
        for position, offset, length in chunks.copies:
            _copy(self._tar, offset, self._index, position, length)
        return _CHUNK_INDEXES | chunks.bits - _BLOCK_BITS

    def _pack_super(self, image: bytearray, blocks: int, shared_at: int) -> None:
        _SUPER.pack_into(
            image,
            _SUPER_AT,
            _MAGIC,
            0,  # checksum: not claimed in feature_compat
            _MTIME,
            _BLOCK_BITS,
            0,
            self._top.nid,
            len(self._inodes),
            0,
            0,
            blocks,
            0,  # metadata begins at block 0, so that no inode has the number 0
            shared_at,
            bytes(16),
            bytes(16),
            self._features,
            0,
            1,  # extra devices: the tar
            _SLOT_AT // 128,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        )
        _SLOT.pack_into(image, _SLOT_AT, b"", max(self._tar_blocks, 1), blocks, 0, 0)

    # -- xattrs

    def _gather_xattrs(self) -> None:
        """Make each inode's area of xattrs; what several have, with the same value, is kept once."""
        having = [inode for inode in self._inodes if inode.xattrs]
        if not having:
            return
        seen = Counter((name, value) for inode in having for name, value in (inode.xattrs or {}).items())
        places: dict[tuple[str, bytes], int] = {}
        shared = bytearray()
        for pair, count in seen.items():
            if count > 1:
                places[pair] = len(shared) // 4
                shared += _xattr(*pair)
        self._shared = bytes(shared)
        for inode in having:
            pairs = list((inode.xattrs or {}).items())
            common = [places[pair] for pair in pairs if pair in places][:_SHARED_LIMIT]
            kept = set(common)
            own = b"".join(_xattr(*pair) for pair in pairs if places.get(pair, -1) not in kept)
            area = b"\0\0\0\0%c" % len(common) + bytes(7) + Struct(f"<{len(common)}I").pack(*common) + own
            if len(area) > _XATTR_AREA_LIMIT:
                raise InvalidArgument("a file has more than 256 KiB of xattrs")
            self._xattrs[inode] = area


def _xattr(name: str, value: bytes) -> bytes:
    prefix, number = next(each for each in _XATTR_PREFIXES if name.startswith(each[0]))
    rest = name[len(prefix) :].encode("utf-8", "surrogateescape")
    entry = bytes((len(rest), number)) + len(value).to_bytes(2, "little") + rest + value
    return entry + bytes(-len(entry) % 4)


def _name(pair: tuple[bytes, Inode]) -> bytes:
    return pair[0]


def _directory_block(listing: _Listing) -> bytes:
    pack, types = _ENTRY.pack, _TYPES
    at = 12 * len(listing)
    head = []
    for name, inode in listing:
        head.append(pack(inode.nid, at, types[inode.mode & 0xF000]))
        at += len(name)
    head += [name for name, _ in listing]
    return b"".join(head)


class _Chunks:
    """The table of one sparse file: pieces of one size, each in the tar, a hole, or a copy in the index."""

    def __init__(self, bits: int, count: int) -> None:
        self.bits = bits
        self.count = count
        self._in_tar: dict[int, int] = {}  # number of the chunk to byte in the tar
        self._copied: dict[int, int] = {}  # to block of the index
        self.copies: list[tuple[int, int, int]] = []  # byte in the index, byte in the tar, bytes

    def place(self, inode: Inode, block: int) -> int:
        """Say where each chunk is; copies go to the index from `block` on; returns the first block after them."""
        size = 1 << self.bits
        at = inode.offset
        for start, length in inode.sparse or ():
            end = start + length
            for number in range(start >> self.bits, -(-end // size)):
                low, high = max(start, number * size), min(end, (number + 1) * size)
                source = at + low - start
                whole = low == number * size and high in ((number + 1) * size, inode.size)
                if whole and source % BLOCK == 0:
                    self._in_tar[number] = source
                    continue
                if number not in self._copied:
                    self._copied[number] = block
                    block += max(1, min(size, inode.size - number * size + BLOCK - 1) >> _BLOCK_BITS)
                position = self._copied[number] * BLOCK + low - number * size
                self.copies.append((position, source, high - low))
            at += length
        return block

    def table(self) -> bytes:
        """Return the entries."""
        entries = bytearray(_CHUNK.pack(0, 0, _HOLE) * self.count)
        for number, source in self._in_tar.items():
            _CHUNK.pack_into(entries, number * 8, 0, 1, source >> _BLOCK_BITS)
        for number, block in self._copied.items():
            _CHUNK.pack_into(entries, number * 8, 0, 0, block)
        return bytes(entries)


def _chunks(inode: Inode) -> _Chunks:
    """Choose chunks as big as the spans' alignment allows, and not more than a table may have."""
    together = inode.offset | 1 << _CHUNK_BITS_LIMIT + _BLOCK_BITS
    for start, length in inode.sparse or ():
        together |= start
        if start + length != inode.size:
            together |= length
    bits = max((together & -together).bit_length() - 1, _BLOCK_BITS)
    if not inode.sparse:
        bits = _CHUNK_BITS_LIMIT + _BLOCK_BITS
    while inode.size > _CHUNKS_LIMIT << bits and bits < _CHUNK_BITS_LIMIT + _BLOCK_BITS:
        bits += 1
    return _Chunks(bits, -(-inode.size >> bits) if inode.size < _FILE_LIMIT * 2 else 0)


def _copy(source: int, offset: int, target: int, position: int, length: int) -> None:
    while length:
        piece = os.pread(source, min(length, 1 << 20), offset)
        if not piece:
            raise InvalidArgument("the tar became shorter while it was read")
        _write_at(target, piece, position)
        offset, position, length = offset + len(piece), position + len(piece), length - len(piece)


def _write_at(fd: int, data: "bytes | bytearray", position: int) -> None:
    view = memoryview(data)
    while view:
        wrote = os.pwrite(fd, view, position)
        view, position = view[wrote:], position + wrote
