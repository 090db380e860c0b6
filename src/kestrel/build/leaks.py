"""Secrets where they must not be: values this build was given, and keys that look like keys.

A value of `--secret` is searched in the bytes of every new layer as they are written, in layers that are reused, and
in the environment, labels and history before anything runs: as it is, URL-encoded in the ways that programs do that,
and in base64 at each of the three places it can begin in a triple, wherever lines are broken. One hit ends the build,
before the layer or the image exists. Values of fewer than eight bytes would be found by chance.

Known forms (private keys, tokens of services) are looked for file by file. Every expression begins with a character, or
several, that the engine of `re` finds with memchr(3), and there are few of them: a layer is gone through quickly.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from kestrel.archive.entries import Kind, Source, TarReader
from kestrel.archive.writer import Sink
from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound
from kestrel.base.files import read_regular

SHORTEST: Final = 8
_LARGEST: Final = 1 << 20
_UNTOUCHED: Final = ("", "/", "!*'()", "$&+=:@", "!#$&'()*+,/:;=?@")
"""What encoders of URLs leave as it is besides letters, digits and `_.-~`: most nothing, some a path's slashes, those
of JavaScript and Go what a part of a URL, or a whole one, may hold."""
_HEXADECIMAL: Final = re.compile(rb"%[0-9A-F]{2}")
_OVERLAP: Final = 4096
"""Bytes of a file's last piece that are looked at again with the next one."""

Secret = Path | bytes
"""A file that holds the value, or the value itself."""


class SecretLeaked(FailedPrecondition):
    """A secret's value is about to be stored where everybody can read it."""


@dataclass(frozen=True, slots=True)
class Needle:
    """One form of a secret's value; a `broken` one may have line breaks in it."""

    id: str
    form: str
    data: bytes
    broken: bool = False


def value_of(name: str, secret: Secret) -> bytes:
    """Return a secret's value. Raises NotFound when its file cannot be read, InvalidArgument when it is too large."""
    value = secret if isinstance(secret, bytes) else _read(name, secret)
    if len(value) > _LARGEST:
        raise InvalidArgument(f"the secret `{name}` is larger than {_LARGEST >> 20} MiB", hint="check its src")
    return value


def _read(name: str, file: Path) -> bytes:
    try:
        return read_regular(file, _LARGEST)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise NotFound(f"cannot read the secret `{name}` from {file}: {reason}", hint="check its src") from None


def needles(secrets: Mapping[str, Secret]) -> tuple[Needle, ...]:
    """Return what to search for. Raises NotFound and InvalidArgument."""
    found: list[Needle] = []
    for name, secret in secrets.items():
        value = value_of(name, secret).strip(b"\r\n")
        if len(value) >= SHORTEST:
            found += _forms(name, value)
    return tuple(found)


def too_short(secrets: Mapping[str, Secret]) -> list[str]:
    """Return the ids of secrets that are not searched for."""
    return [name for name, secret in secrets.items() if 0 < len(value_of(name, secret).strip(b"\r\n")) < SHORTEST]


def _forms(name: str, value: bytes) -> list[Needle]:
    forms = [Needle(name, "as it is", value)]
    urls = {encode(value, safe=safe).encode() for encode in (quote, quote_plus) for safe in _UNTOUCHED}
    urls |= {_HEXADECIMAL.sub(lambda found: found[0].lower(), url) for url in urls}
    forms += [Needle(name, "URL-encoded", data) for data in sorted(urls - {value})]
    encoded: set[bytes] = set()
    for shift in range(3):
        # What stands before shifts the value within its triple: the characters that only it decides are the same.
        whole = base64.b64encode(bytes(shift) + value)
        begin = (0, 2, 3)[shift]
        end = len(whole) - {0: 0, 1: 3, 2: 2}[(shift + len(value)) % 3]
        encoded.add(whole[begin:end])
        encoded.add(whole[begin:end].translate(bytes.maketrans(b"+/", b"-_")))
    return forms + [Needle(name, "in base64", data, True) for data in sorted(encoded) if len(data) >= SHORTEST]


def fingerprint(wanted: Iterable[Needle]) -> bytes:
    """Return what tells these secrets from others, to be kept in memory in their place."""
    return hashlib.sha256(b"\0".join(needle.data for needle in wanted)).digest()


def search(text: bytes, wanted: Iterable[Needle]) -> Needle | None:
    """Return the first form found in some bytes."""
    joined = text.translate(None, b"\r\n")
    return next((needle for needle in wanted if needle.data in (joined if needle.broken else text)), None)


class Guard:
    """A sink for a tar that lets through what holds no secret. Raises SecretLeaked from `write`."""

    def __init__(self, sink: Sink | None, wanted: tuple[Needle, ...]) -> None:
        self._sink = sink
        self._wanted = wanted
        self._overlap = 2 * max(len(needle.data) for needle in wanted)  # twice, for the line breaks
        self._before = b""
        self._size = 0
        self._member = ""

    def write(self, data: "bytes | bytearray | memoryview", /) -> object:
        """Look, then hand on."""
        text = self._before + bytes(data)
        found = search(text, self._wanted)
        at = -1 if found is None else text.find(found.data)
        self._member = _member(text, at if at >= 0 else len(text), self._size - len(self._before)) or self._member
        if found is not None:
            raise leaked(found, f"the layer ({self._member})" if self._member else "the layer")
        self._before = text[-self._overlap :]
        self._size += len(data)
        return self._sink.write(data) if self._sink is not None else None


def guarded(sink: Sink, wanted: tuple[Needle, ...]) -> Sink:
    """Return a sink that refuses secrets; the sink itself when there are none."""
    return Guard(sink, wanted) if wanted else sink


def leaked(found: Needle, where: str) -> SecretLeaked:
    """Make the error, which never holds the value."""
    return SecretLeaked(
        f"the value of the secret `{found.id}` is in {where} {found.form}",
        hint="whoever has the image would have it; use RUN --mount=type=secret and write it nowhere",
    )


def masked(text: str, found: Needle) -> str:
    """Return one line of a text that holds a secret, without it."""
    line = " ".join(text.replace(found.data.decode("utf-8", "surrogateescape"), "***").split())
    return line if len(line) <= 60 else line[:59] + "…"


def _member(text: bytes, end: int, offset: int) -> str:
    """Name the last member of a tar whose header is in a piece of it, before `end`; the piece begins at `offset`."""
    while (end := text.rfind(b"ustar\0", 0, end)) >= 257:
        head = text[end - 257 : end + 255]
        told = head[148:155].strip(b"\0 ")
        # Text that only looks like one is at another place, or has another sum (POSIX pax, "ustar Interchange Format").
        if (
            (offset + end - 257) % 512 == 0
            and told.isdigit()
            and int(told, 8) == sum(head[:148]) + 8 * 32 + sum(head[156:])
        ):
            prefix, name = head[345:500].rstrip(b"\0"), head[:100].rstrip(b"\0")
            return "file /" + (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")
    return ""


@dataclass(frozen=True, slots=True)
class Forms:
    """Kinds of keys that one expression tells apart, by group, and the names of files it is for (None: all)."""

    kinds: tuple[str, ...]
    expression: "re.Pattern[bytes]"
    files: "re.Pattern[str] | None" = None


def _forms_with(literal: bytes, kinds: Mapping[str, bytes], files: str = "") -> Forms:
    expression = literal + b"(?:" + b"|".join(b"(%b)" % each for each in kinds.values()) + b")"
    return Forms(tuple(kinds), re.compile(expression), re.compile(rf"(.*/)?({files})") if files else None)


FORMS: Final = (
    _forms_with(
        b"-",
        {
            "private key": rb"----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[\w+/=:, -]{16}",
            "GitLab token": rb"(?<=glpat-)[\w-]{20}",
            "PyPI token": rb"(?<=pypi-)AgE[\w-]{50}",
            "Slack token": rb"(?<=xox[abeprs]-)[0-9A-Za-z-]{16}",
        },
    ),
    _forms_with(
        b"A",
        {
            "AWS access key": rb"[KS]IA(?<![A-Z0-9]A.IA)[0-9A-Z]{16}(?![A-Z0-9])",
            "Google API key": rb"Iza[\w-]{35}(?![\w-])",
        },
    ),
    _forms_with(
        b"_",
        {
            "GitHub token": rb"(?<=gh[pousr]_)[A-Za-z0-9]{36}|(?<=github_pat_)\w{50}",
            "Stripe key": rb"(?<=[sr]k_)live_[0-9A-Za-z]{20}",
            "npm token": rb"(?<=npm_)[A-Za-z0-9]{36}|authToken\s*=\s*[^\s$][^\s]{10}",
        },
    ),
    _forms_with(
        b'"',
        {
            "Google service account": rb'type"\s*:\s*"service_account"',
            "registry login": rb'auths"(?s:.{0,2000}?)"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"',
        },
    ),
    _forms_with(b"eyJ", {"JSON web token": rb"[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{16}"}),
    _forms_with(b"PuTTY-User-Key-File-", {"private key": rb"\d: "}),
    _forms_with(b"_", {"npm login": rb"(?:auth|password)\s*=\s*[^\s$][^\s]{7}"}, r"\.npmrc"),
    _forms_with(b"password", {"login": rb"\s+\S{4}"}, r"[._]netrc"),
    _forms_with(b"password", {"login": rb"\s*[:=]\s*[^\s$][^\s]{7}"}, r"\.pypirc"),
    _forms_with(b"://", {"login": rb"[^:/\s]+:[^@\s]+@"}, r"\.git-credentials"),
    _forms_with(
        b"",
        {
            "password or token": rb"(?im:^[\w ]*(?:secret|token|passw|api_?key)\w*[ \t]*="
            rb"[ \t]*[\"']?[^\s\"'${<][^\s\"']{7})"
        },
        r"\.env(\.\w+)?",
    ),
)


Key = tuple[str, str, int]
"""What it is, the path, the line from 1."""


@dataclass(slots=True)
class Look:
    """A look through one file, piece after piece; the first of each kind of key is kept."""

    path: str
    keys: list[Key]
    _last: bytes = b""
    _lines: int = 0
    _seen: set[str] = field(default_factory=set)

    def take(self, piece: bytes) -> None:
        """Look into the next piece."""
        text = self._last + piece if self._last else piece
        for what, line in known_forms(text, self.path):
            if what not in self._seen:
                self._seen.add(what)
                self.keys.append((what, self.path, self._lines + line))
        self._last = text[-_OVERLAP:]
        self._lines += text.count(b"\n", 0, len(text) - len(self._last))


@dataclass(slots=True)
class Scan:
    """The keys found in a layer while it is written. `before` are paths that had some in the layer it takes files from.

    `complete` when every file has been looked at, here or there.
    """

    before: frozenset[str] = frozenset()
    keys: list[Key] = field(default_factory=list)
    complete: bool = False

    def file(self, path: str) -> Look:
        """Begin to look into a file."""
        return Look(path, self.keys)


def keys_in(tar: Source) -> Iterator[Key]:
    """Yield the keys in a plain tar, file by file."""
    reader = TarReader(tar)
    for entry in reader:
        if entry.kind is Kind.FILE:
            look = Look(f"/{entry.name}", [])
            for piece in reader.data():
                look.take(bytes(piece))
            yield from look.keys


def known_forms(data: bytes, path: str = "") -> list[tuple[str, int]]:
    """Return (what it is, line number from 1) for each kind of key in some bytes, the first of each kind."""
    found: dict[str, int] = {}
    for forms in FORMS:
        if forms.files is None or forms.files.fullmatch(path):
            for match in forms.expression.finditer(data):
                kind = forms.kinds[(match.lastindex or 1) - 1]
                if kind not in found:
                    found[kind] = data.count(b"\n", 0, match.start()) + 1
    return list(found.items())
