"""SPDY/3.1 framing: bytes in, events out; no I/O.

Kubernetes still speaks it: older kubectl for exec and attach, every kubectl for port-forward (bare, or inside
WebSocket messages). Only streams, half-close, reset and ping matter there. The Go library at the other end neither
sends nor honours WINDOW_UPDATE, so `Codec` decodes such frames and leaves their use to the caller.

Draft: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/ (sections are cited below).
A `Codec` is one end of one connection: the header compression of each direction is one zlib stream for its life.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kestrel.base.errors import InvalidArgument

VERSION = 3
FIN = 0x01
UNIDIRECTIONAL = 0x02

MAX_FRAME = 1 << 20
"""Longest frame taken, in bytes; peers send 32 KiB at most, a frame of 16 MiB would be possible."""
MAX_HEADERS = 64 * 1024
"""Longest header block after decompression, in bytes."""

PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 3, 5, 6
"""Status codes of RST_STREAM (section 2.6.3) that we send."""

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_MORE_WORDS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(len(word).to_bytes(4, "big") + word.encode() for word in (*_WORDS, *_MORE_WORDS)) + _TAIL.encode()
"""What both ends prime header compression with (section 2.6.10.1)."""


class SpdyError(InvalidArgument):
    """The peer broke the protocol; the connection is of no more use."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """SYN_STREAM: the peer opens a stream. `fin` means it will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False
    unidirectional: bool = False


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """SYN_REPLY: the peer takes a stream of ours."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """HEADERS: more headers for a stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes of a stream; with `fin` the last ones."""

    stream: int
    data: bytes = field(repr=False)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class StreamReset:
    """RST_STREAM: the stream is over in both directions."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class PingReceived:
    """PING: to be sent back as it is, unless it answers one of ours."""

    identity: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY: the peer takes no new streams after `last_stream`."""

    last_stream: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdated:
    """WINDOW_UPDATE: the peer has room for `delta` more bytes on the stream (0: on the connection)."""

    stream: int
    delta: int


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """SETTINGS: value by identity."""

    values: Mapping[int, int]


Event = (
    StreamOpened
    | StreamAccepted
    | HeadersReceived
    | DataReceived
    | StreamReset
    | PingReceived
    | GoAway
    | WindowUpdated
    | SettingsReceived
)


class Codec:
    """Frames of one connection in both directions."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of any length and return the frames that are now complete; raises SpdyError."""
        self._buffer += data
        return list(self._events())

    def _events(self) -> Iterator[Event]:
        while len(self._buffer) >= 8:
            head = int.from_bytes(self._buffer[:4], "big")
            flags = self._buffer[4]
            length = int.from_bytes(self._buffer[5:8], "big")
            if length > MAX_FRAME:
                raise SpdyError(f"frame of {length} bytes is longer than {MAX_FRAME}")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not head >> 31:
                yield DataReceived(head, payload, bool(flags & FIN))
                continue
            if (head >> 16) & 0x7FFF != VERSION:
                raise SpdyError(f"control frame of version {(head >> 16) & 0x7FFF}, not {VERSION}")
            event = self._control(head & 0xFFFF, flags, payload)
            if event is not None:
                yield event

    def _control(self, kind: int, flags: int, payload: bytes) -> "Event | None":
        fin = bool(flags & FIN)
        match kind:
            case 1:
                stream, _associated, _priority = _unpack("!IIH", payload, "SYN_STREAM")
                headers = self._headers(payload[10:])
                return StreamOpened(stream & 0x7FFFFFFF, headers, fin, bool(flags & UNIDIRECTIONAL))
            case 2:
                (stream,) = _unpack("!I", payload, "SYN_REPLY")
                return StreamAccepted(stream & 0x7FFFFFFF, self._headers(payload[4:]), fin)
            case 3:
                stream, status = _unpack("!II", payload, "RST_STREAM")
                return StreamReset(stream & 0x7FFFFFFF, status)
            case 4:
                return _settings(payload)
            case 6:
                return PingReceived(_unpack("!I", payload, "PING")[0])
            case 7:
                last, status = _unpack("!II", payload, "GOAWAY")
                return GoAway(last & 0x7FFFFFFF, status)
            case 8:
                (stream,) = _unpack("!I", payload, "HEADERS")
                return HeadersReceived(stream & 0x7FFFFFFF, self._headers(payload[4:]), fin)
            case 9:
                stream, delta = _unpack("!II", payload, "WINDOW_UPDATE")
                return WindowUpdated(stream & 0x7FFFFFFF, delta & 0x7FFFFFFF)
        return None  # section 2.2.1: an unknown control frame is skipped

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"cannot decompress headers: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"headers are longer than {MAX_HEADERS} bytes")
        return _parse_headers(raw)

    def _pack_headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [len(headers).to_bytes(4, "big")]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts.append(len(text).to_bytes(4, "big"))
                parts.append(text)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Return a SYN_STREAM; clients use odd numbers, servers even ones."""
        payload = struct.pack("!IIH", stream, 0, 0) + self._pack_headers(headers)
        return _frame(_SYN_STREAM, payload, FIN if fin else 0)

    def accept_stream(self, stream: int, headers: "Mapping[str, str] | None" = None) -> bytes:
        """Return the SYN_REPLY that takes a stream."""
        return _frame(_SYN_REPLY, stream.to_bytes(4, "big") + self._pack_headers(headers or {}))


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    """Return one DATA frame; `fin` half-closes the stream."""
    return struct.pack("!II", stream, ((FIN if fin else 0) << 24) | len(data)) + data


def reset_frame(stream: int, status: int) -> bytes:
    """Return a RST_STREAM."""
    return _frame(_RST_STREAM, struct.pack("!II", stream, status))


def ping_frame(identity: int) -> bytes:
    """Return a PING."""
    return _frame(_PING, identity.to_bytes(4, "big"))


def goaway_frame(last_stream: int, status: int = 0) -> bytes:
    """Return a GOAWAY."""
    return _frame(_GOAWAY, struct.pack("!II", last_stream, status))


def window_frame(stream: int, delta: int) -> bytes:
    """Return a WINDOW_UPDATE."""
    return _frame(_WINDOW_UPDATE, struct.pack("!II", stream, delta))


def _frame(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack("!HHI", 0x8000 | VERSION, kind, (flags << 24) | len(payload)) + payload


def _unpack(layout: str, payload: bytes, name: str) -> tuple[int, ...]:
    if len(payload) < struct.calcsize(layout):
        raise SpdyError(f"{name} frame of {len(payload)} bytes is too short")
    return struct.unpack_from(layout, payload)


def _settings(payload: bytes) -> SettingsReceived:
    (count,) = _unpack("!I", payload, "SETTINGS")
    if len(payload) < 4 + 8 * count:
        raise SpdyError(f"SETTINGS frame of {len(payload)} bytes is too short")
    pairs = struct.iter_unpack("!II", payload[4 : 4 + 8 * count])
    return SettingsReceived({identity & 0xFFFFFF: value for identity, value in pairs})


def _parse_headers(raw: bytes) -> dict[str, str]:
    """Read the name/value block of section 2.6.10; several values of a name stay joined by NUL."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        piece = raw[position : position + count]
        if len(piece) != count:
            raise SpdyError("header block ends early")
        position += count
        return piece

    headers: dict[str, str] = {}
    for _ in range(int.from_bytes(take(4), "big")):
        name = take(int.from_bytes(take(4), "big"))
        value = take(int.from_bytes(take(4), "big"))
        headers[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")
    return headers
