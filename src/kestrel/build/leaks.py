"""Secrets where they must not be: values this build was given, and keys that look like keys.

A value of `--secret` is searched in the bytes of every new layer as they are written, and in the environment, labels
and history before anything runs: as it is, URL-encoded, and in base64 at each of the three places it can begin in a
triple. One hit ends the build, before the layer exists. Values of fewer than eight bytes would be found by chance.

Known forms (private keys, tokens of services) are looked for with one cheap pass for their first bytes; only where
those are found does an expression look closer.
"""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from kestrel.archive.entries import Kind, Source, TarReader
from kestrel.archive.writer import Sink
from kestrel.base.errors import FailedPrecondition

SHORTEST: Final = 8
_LARGEST: Final = 1 << 20
_SCANNED: Final = 32 << 20


class SecretLeaked(FailedPrecondition):
    """A secret's value is about to be stored where everybody can read it."""


@dataclass(frozen=True, slots=True)
class Needle:
    """One form of a secret's value."""

    id: str
    form: str
    data: bytes


def needles(secrets: Mapping[str, Path]) -> tuple[Needle, ...]:
    """Return what to search for; files that cannot be read are the mounts' business."""
    found: list[Needle] = []
    for name, path in secrets.items():
        try:
            with open(path, "rb") as file:
                value = file.read(_LARGEST).strip(b"\r\n")
        except OSError:
            continue
        if len(value) >= SHORTEST:
            found += _forms(name, value)
    return tuple(found)


def _forms(name: str, value: bytes) -> list[Needle]:
    forms = [Needle(name, "as it is", value)]
    urls = {text.encode() for text in (quote(value, safe=""), quote_plus(value))} - {value}
    forms += [Needle(name, "URL-encoded", data) for data in sorted(urls)]
    encoded: set[bytes] = set()
    for shift in range(3):
        # What stands before shifts the value within its triple: the characters that only it decides are the same.
        whole = base64.b64encode(bytes(shift) + value)
        begin = (0, 2, 3)[shift]
        end = len(whole) - {0: 0, 1: 3, 2: 2}[(shift + len(value)) % 3]
        encoded.add(whole[begin:end])
        encoded.add(whole[begin:end].translate(bytes.maketrans(b"+/", b"-_")))
    return forms + [Needle(name, "in base64", data) for data in sorted(encoded) if len(data) >= SHORTEST]


def search(text: bytes, wanted: Iterable[Needle]) -> Needle | None:
    """Return the first form found in some bytes."""
    return next((needle for needle in wanted if needle.data in text), None)


class Guard:
    """A sink that lets through what holds no secret. Raises SecretLeaked from `write`."""

    def __init__(self, sink: Sink, wanted: tuple[Needle, ...]) -> None:
        self._sink = sink
        self._wanted = wanted
        self._overlap = max((len(needle.data) for needle in wanted), default=1) - 1
        self._before = b""

    def write(self, data: "bytes | bytearray | memoryview", /) -> object:
        """Look, then hand on."""
        text = self._before + bytes(data)
        found = search(text, self._wanted)
        if found is not None:
            raise leaked(found, "the layer", nearby(text, text.find(found.data)))
        self._before = text[-self._overlap :] if self._overlap else b""
        return self._sink.write(data)


def guarded(sink: Sink, wanted: tuple[Needle, ...]) -> Sink:
    """Return a sink that refuses secrets; the sink itself when there are none."""
    return Guard(sink, wanted) if wanted else sink


def leaked(found: Needle, where: str, near: str = "") -> SecretLeaked:
    """Make the error, which never holds the value."""
    return SecretLeaked(
        f"the value of the secret `{found.id}` is in {where} {found.form}" + (f" ({near})" if near else ""),
        hint="whoever has the image would have it; use RUN --mount=type=secret and write it nowhere",
    )


def nearby(text: bytes, at: int) -> str:
    """Return the name of the tar member that a position is in, where its header is in the same piece of text."""
    magic = text.rfind(b"ustar\0", 0, at)
    if magic < 257:
        return ""
    head = text[magic - 257 : magic + 255]
    prefix, name = head[345:500].rstrip(b"\0"), head[:100].rstrip(b"\0")
    return "file /" + (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of key: what it is called, bytes it begins with, and the expression that makes sure."""

    name: str
    prefixes: tuple[bytes, ...]
    expression: "re.Pattern[bytes]"


def _form(name: str, prefixes: str, expression: bytes) -> Form:
    return Form(name, tuple(prefixes.encode().split(b"|")), re.compile(expression))


FORMS: Final = (
    _form("private key", "-----BEGIN ", rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[\w+/=:, -]{16}"),
    _form("AWS access key", "AKIA|ASIA", rb"(?<![A-Z0-9])A[KS]IA[0-9A-Z]{16}(?![A-Z0-9])"),
    _form("GitHub token", "ghp_|gho_|ghu_|ghs_|ghr_|github_pat_", rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50,}"),
    _form("GitLab token", "glpat-", rb"glpat-[\w-]{20}"),
    _form("Slack token", "xox", rb"xox[abeprs]-[0-9A-Za-z-]{16,}"),
    _form("Google API key", "AIza", rb"AIza[\w-]{35}(?![\w-])"),
    _form("Google service account", '"service_account"', rb'"type"\s*:\s*"service_account"'),
    _form("Stripe key", "k_live_", rb"[sr]k_live_[0-9A-Za-z]{20,}"),
    _form("npm token", "npm_|_authToken", rb"npm_[A-Za-z0-9]{36}|_authToken\s*=\s*[^\s$][^\s]{10,}"),
    _form("PyPI token", "pypi-AgE", rb"pypi-AgE[\w-]{50,}"),
    _form("registry login", '"auths"', rb'"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"'),
    _form("JSON web token", "eyJ", rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{16,}"),
)


Key = tuple[str, str, int]
"""What it is, the path, the line from 1."""


@dataclass(slots=True)
class Scan:
    """The keys found in a layer while it is written. `before` are paths that had some in the layer it takes files from.

    `complete` when every file has been looked at, here or there.
    """

    before: frozenset[str] = frozenset()
    keys: list[Key] = field(default_factory=list)
    complete: bool = False

    def look(self, path: str, data: bytes, lines: int = 0) -> None:
        """Look into a file, or the piece of it that comes after so many lines."""
        self.keys += [(what, path, lines + line) for what, line in known_forms(data)]


def keys_in(tar: Source) -> Iterator[Key]:
    """Yield the keys in a plain tar, file by file. Very large files are left out."""
    reader = TarReader(tar)
    for entry in reader:
        if entry.kind is Kind.FILE and entry.stored <= _SCANNED:
            for what, line in known_forms(b"".join(map(bytes, reader.data()))):
                yield what, f"/{entry.name}", line


def known_forms(data: bytes) -> list[tuple[str, int]]:
    """Return (what it is, line number from 1) for each kind of key in some bytes, the first of each kind."""
    found = []
    for form in FORMS:
        if any(prefix in data for prefix in form.prefixes):
            match = form.expression.search(data)
            if match is not None:
                found.append((form.name, data.count(b"\n", 0, match.start()) + 1))
    return found
