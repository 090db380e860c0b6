"""Where the machine gets its Debian packages from: apt's own configuration, read and never changed.

`sources.list(5)`: one-line `.list` files and deb822 `.sources` files. A source counts when it is enabled, offers
binary packages for this architecture over http, https or a local path, and names the keyring that signs it. A source
without Signed-By is tried with Debian's own keyring and with nothing else, which is stricter than apt: any key in
trusted.gpg.d could sign there. Whatever is left out is told, with the reason.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.images.bootstrap.control import stanzas

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One suite of one archive. `signed_by` holds keyring paths, or one armored key given inline."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: tuple[str, ...] = (DEBIAN_KEYRING,)
    origin: str = ""
    """The file that speaks of it."""

    def __str__(self) -> str:
        return f"{public(self.uri)} {self.suite} {' '.join(self.components)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AptConfig:
    """What the machine's apt is told: sources that can be used, and why others cannot."""

    architecture: str
    sources: tuple[Source, ...]
    skipped: tuple[str, ...]
    proxies: Mapping[str, str]
    """`http`, `https` or `http::host` to a proxy URL, or `DIRECT`."""
    check_valid_until: bool = True


def public(uri: str) -> str:
    """Return a URI without user and password, fit to be shown or written into an image."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def architecture() -> str:
    """Return Debian's name of this machine's architecture. Raises FailedPrecondition when Debian has none."""
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise FailedPrecondition(f"no Debian architecture is known for {machine}")
    return _MACHINES[machine]


def read(root: "str | Path" = "/etc/apt") -> AptConfig:
    """Read the machine's sources. Raises FailedPrecondition when none can be used, saying why for each."""
    root = Path(root)
    arch = architecture()
    sources: list[Source] = []
    skipped: list[str] = []
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]
    for path in files:
        parse = {".list": one_line, ".sources": deb822}.get(path.suffix)
        if parse is None or not path.is_file():
            continue
        for found in parse(path.read_text(errors="replace"), str(path), arch):
            if isinstance(found, Source):
                sources.append(found)
            else:
                skipped.append(found)
    if not sources:
        because = "; ".join(skipped) or f"{root} names none"
        raise FailedPrecondition(
            f"no Debian package source can be used: {because}",
            hint=f"add a deb822 file with Types, URIs, Suites, Components and Signed-By to {root}/sources.list.d",
        )
    settings = _settings()
    return AptConfig(
        architecture=arch,
        sources=tuple(dict.fromkeys(sources)),
        skipped=tuple(skipped),
        proxies={
            name.removeprefix("acquire::").removesuffix("::proxy").replace("::proxy::", "::"): value
            for name, value in settings.items()
            if re.fullmatch(r"acquire::https?::proxy(::.+)?", name)
        },
        check_valid_until=settings.get("acquire::check-valid-until", "true") not in ("false", "no", "0"),
    )


def _settings() -> dict[str, str]:
    """Ask apt itself for its settings (many files and an own syntax make them); none when apt is not there."""
    try:
        done = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, check=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = re.findall(r'^(\S+) "(.*)";$', done.stdout, re.MULTILINE)
    return {name.lower(): value.lower() if name.endswith("Valid-Until") else value for name, value in pairs if value}


def deb822(text: str, origin: str, arch: str) -> Iterator["Source | str"]:
    """Yield the sources of a `.sources` file, and a sentence for each that cannot be used."""
    try:
        blocks = list(stanzas(text))
    except InvalidArgument as error:
        yield f"{origin} cannot be read: {error}"
        return
    for block in blocks:
        if "deb" not in block.get("types", "").split() or block.get("enabled", "yes").lower() in ("no", "false"):
            continue
        yield from _sources(
            uris=block.get("uris", "").split(),
            suites=block.get("suites", "").split(),
            components=block.get("components", "").split(),
            options={k: v for k, v in block.items() if k in ("architectures", "signed-by", "trusted")},
            origin=origin,
            arch=arch,
        )


def one_line(text: str, origin: str, arch: str) -> Iterator["Source | str"]:
    """Yield the sources of a `.list` file, and a sentence for each that cannot be used."""
    for line in text.splitlines():
        match = re.fullmatch(r"\s*deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>[^#]+?)\s*(?:#.*)?", line)
        if not match:
            continue
        options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
        options = {("architectures" if k == "arch" else k): v.replace(",", " ") for k, v in options.items()}
        uri, *words = shlex.split(match["rest"])
        yield from _sources([uri], words[:1], words[1:], options, origin, arch)


def _sources(
    uris: list[str], suites: list[str], components: list[str], options: dict[str, str], origin: str, arch: str
) -> Iterator["Source | str"]:
    wanted = options.get("architectures", "").split()
    signed_by = options.get("signed-by", "").strip()
    for suite in suites:
        what = f"{' '.join(public(u) for u in uris)} {suite} ({origin})"
        usable = [real for uri in uris for real in _resolve(uri)]
        if wanted and arch not in wanted:
            yield f"{what} is not for {arch}"
        elif suite.endswith("/") or not components:
            yield f"{what} is a flat archive, not a Debian one"
        elif not usable:
            yield f"{what} is reached by a method that is not supported here (http, https, file and mirror+file are)"
        else:
            keys = (signed_by,) if "BEGIN PGP" in signed_by else tuple(signed_by.split()) or (DEBIAN_KEYRING,)
            for uri in usable[:1]:
                yield Source(
                    uri=uri.rstrip("/"),
                    suite=suite.replace("$(ARCH)", arch),
                    components=tuple(components),
                    signed_by=keys,
                    origin=origin,
                )


def _resolve(uri: str) -> list[str]:
    """Return the http, https or file URIs behind one; Debian's cloud images name a list of mirrors in a file."""
    if uri.startswith(("http://", "https://", "file:")):
        return [uri]
    if uri.startswith("mirror+file:"):
        listed = Path(re.sub(r"^mirror\+file:(//)?", "", uri))
        try:
            lines = listed.read_text().splitlines()
        except OSError:
            return []
        return [line.split()[0] for line in lines if line.strip().startswith(("http://", "https://", "file:"))]
    return []
