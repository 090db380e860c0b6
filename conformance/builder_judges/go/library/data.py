"""json, digest, tar, gzip, io."""

import datetime as dt
import gzip as python_gzip
import hashlib
import io as python_io
import json as python_json
import re
import tarfile
from typing import Any

from builder_judges.go.library.clock import Time, moment
from builder_judges.go.library.files import EOF
from builder_judges.go.values import Error, Native, Package, Struct, Type, dereferenced, store

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)")


def _times(value: dict[str, Any]) -> dict[str, Any]:
    return {n: moment(v) if isinstance(v, str) and _STAMP.fullmatch(v) else v for n, v in value.items()}


def _unmarshal(data: Any, target: Any) -> "Error | None":
    try:
        value = python_json.loads(bytes(data), object_hook=_times)
    except ValueError as error:
        return Error(str(error))
    store(target, value)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return {name: _plain(each) for name, each in value.fields.items()}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


json = Package(
    "json",
    {"Unmarshal": _unmarshal, "Marshal": lambda value: (python_json.dumps(_plain(value)).encode(), None)},
)


class Digest(str, Native):
    """digest.Digest."""

    __slots__ = ()

    def String(self) -> str:
        return str(self)

    def Encoded(self) -> str:
        return self.partition(":")[2]

    Hex = Encoded

    def Algorithm(self) -> str:
        return self.partition(":")[0]

    def Validate(self) -> "Error | None":
        return None if re.fullmatch(r"sha256:[0-9a-f]{64}", self) else Error("invalid digest")


def _digest(data: "bytes | str | None") -> Digest:
    data = data.encode() if isinstance(data, str) else data or b""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


digest = Package("digest", {"FromBytes": _digest, "FromString": _digest, "Digest": Type("digest.Digest", make=Digest)})


class Header(Native):
    """tar.Header."""

    def __init__(self, **fields: Any) -> None:
        self.Name, self.Linkname, self.Mode, self.Size, self.Uid, self.Gid = "", "", 0, 0, 0, 0
        self.Uname, self.Gname, self.Typeflag, self.ModTime, self.Devmajor, self.Devminor = "", "", 0, None, 0, 0
        self.PAXRecords: dict[str, str] = {}
        self.Xattrs: dict[str, str] = {}
        self.__dict__.update(fields)

    def FileInfo(self) -> "Header":
        return self

    def IsDir(self) -> bool:
        return self.Typeflag == ord("5")

    @classmethod
    def of(cls, info: tarfile.TarInfo) -> "Header":
        """Return what Go would show of an entry."""
        name = info.name + ("/" if info.isdir() else "")
        time_ = Time(dt.datetime.fromtimestamp(info.mtime, dt.UTC))
        return cls(
            Name=name,
            Linkname=info.linkname,
            Mode=info.mode,
            Size=info.size,
            Uid=info.uid,
            Gid=info.gid,
            Uname=info.uname,
            Gname=info.gname,
            Typeflag=info.type[0] or ord("0"),
            ModTime=time_,
            Devmajor=info.devmajor,
            Devminor=info.devminor,
            PAXRecords=dict(info.pax_headers),
        )


class TarWriter(Native):
    """tar.Writer: headers are written at once, padding before the next, as Go's writer does it."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._left = 0
        self._padding = 0

    def WriteHeader(self, given: Any) -> None:
        self.Flush()
        header: Header = dereferenced(given)
        info = tarfile.TarInfo(header.Name)
        kind = header.Typeflag or (ord("5") if header.Name.endswith("/") else ord("0"))
        info.type = bytes([kind])
        info.linkname, info.mode, info.size = header.Linkname, header.Mode, header.Size
        info.uid, info.gid, info.uname, info.gname = header.Uid, header.Gid, header.Uname, header.Gname
        info.devmajor, info.devminor = header.Devmajor, header.Devminor
        info.mtime = header.ModTime.Unix() if header.ModTime is not None and not header.ModTime.IsZero() else 0
        xattrs = {f"SCHILY.xattr.{name}": value for name, value in (header.Xattrs or {}).items()}
        info.pax_headers = {**(header.PAXRecords or {}), **xattrs}
        self._sink.Write(info.tobuf(tarfile.PAX_FORMAT))
        self._padding = -header.Size % 512

    def Write(self, data: bytes) -> tuple[int, None]:
        self._sink.Write(data)
        return len(data), None

    def Flush(self) -> None:
        self._sink.Write(bytes(self._padding))
        self._padding = 0

    def Close(self) -> None:
        self.Flush()
        self._sink.Write(bytes(1024))


class GzipWriter(Native):
    """gzip.Writer."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._data = bytearray()

    def Write(self, data: bytes) -> tuple[int, None]:
        self._data += data
        return len(data), None

    def Close(self) -> None:
        self._sink.Write(python_gzip.compress(bytes(self._data), mtime=0))

    def Flush(self) -> None:
        return None


tar = Package(
    "tar",
    {
        "Header": Header,
        "NewWriter": TarWriter,
        **{f"Type{n}": ord(c) for n, c in zip("Reg Link Symlink Char Block Dir Fifo".split(), "0123456", strict=True)},
    },
)


def tar_map(data: bytes, compressed: bool) -> tuple[Any, Any]:
    """What is in a tar, by name; an entry that stands in it twice is an error."""
    found: dict[str, Any] = {}
    try:
        with tarfile.open(fileobj=python_io.BytesIO(data), mode="r:*" if compressed else "r:") as archive:
            for info in archive:
                header = Header.of(info)
                if header.Name in found:
                    return None, Error(f"duplicate entries for {header.Name}")
                content = archive.extractfile(info) if info.isreg() else None
                found[header.Name] = Struct("TarItem", {"Header": header, "Data": content.read() if content else b""})
    except (tarfile.TarError, OSError) as error:
        return None, Error(str(error))
    return found, None


def _copy(sink: Any, source: Any) -> tuple[int, None]:
    return sink.Write(source.Bytes())


io = Package(
    "io",
    {"ReadAll": lambda source: (source.Bytes(), None), "Copy": _copy, "EOF": EOF, "NopCloser": lambda source: source},
)
