"""A suite's signed index: InRelease, and what it vouches for.

The chain of trust: gpgv checks InRelease against the keyring the source names; InRelease holds the sha256 of each
Packages file; Packages holds the sha256 of each .deb (https://wiki.debian.org/SecureApt). Only what gpgv hands back
as signed is read; text outside the signature never is.
"""

import base64
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from kestrel.base.errors import DataLoss, FailedPrecondition, Unauthenticated
from kestrel.images.bootstrap.control import stanza
from kestrel.images.bootstrap.sources import Source, public


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The verified index of a suite. `files` maps a path below the suite to (sha256, size)."""

    source: Source
    origin: str
    codename: str
    date: datetime
    by_hash: bool
    files: Mapping[str, tuple[str, int]]

    def uri(self, path: str) -> str:
        """Return where a listed file is; by its digest where offered, which is safe while a mirror updates."""
        if self.by_hash:
            path = f"{path.rpartition('/')[0]}/by-hash/SHA256/{self.files[path][0]}"
        return f"{self.source.uri}/dists/{self.source.suite}/{path}"


def read(source: Source, signed: bytes, *, now: datetime | None, keyrings: "list[Path] | None" = None) -> Release:
    """Check and read an InRelease. `now` None leaves Valid-Until unchecked.

    Raises Unauthenticated when the signature is not good, DataLoss when what is signed cannot be understood or is
    too old.
    """
    fields = stanza(verify(source, signed, keyrings).decode("utf-8", "replace"))
    if now is not None and "valid-until" in fields and _moment(fields["valid-until"]) < now:
        raise DataLoss(
            f"the index of {source} expired on {fields['valid-until']}",
            hint="the mirror is out of date, or this machine's clock is wrong",
        )
    if "sha256" not in fields or "date" not in fields:
        raise DataLoss(f"the index of {source} lists no sha256 sums or has no date")
    return Release(
        source=source,
        origin=fields.get("origin", ""),
        codename=fields.get("codename", source.suite),
        date=_moment(fields["date"]),
        by_hash=fields.get("acquire-by-hash") == "yes",
        files=dict(_sums(fields["sha256"])),
    )


def _sums(field: str) -> "list[tuple[str, tuple[str, int]]]":
    lines = (line.split() for line in field.splitlines() if line.strip())
    return [(words[2], (words[0], int(words[1]))) for words in lines if len(words) == 3]


def _moment(text: str) -> datetime:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError as error:
        raise DataLoss(f"not a date: {text!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def verify(source: Source, signed: bytes, keyrings: "list[Path] | None" = None) -> bytes:
    """Return the signed text of a clear-signed file when one of the source's keys signed it.

    Raises Unauthenticated naming the archive, and FailedPrecondition when gpgv or the keyring is missing.
    """
    with tempfile.TemporaryDirectory(prefix="kestrel-gpgv-") as directory:
        work = Path(directory)
        rings = keyrings if keyrings is not None else _keyrings(source, work)
        (work / "InRelease").write_bytes(signed)
        arguments = [argument for ring in rings for argument in ("--keyring", str(ring))]
        command = ["gpgv", "--homedir", directory, *arguments, "--output", str(work / "Release"), "--", "InRelease"]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)
        except FileNotFoundError:
            raise FailedPrecondition(
                "gpgv is not installed, so package sources cannot be verified", hint="apt-get install gpgv"
            ) from None
        if done.returncode != 0 or not (work / "Release").exists():
            raise Unauthenticated(
                f"the signature of {public(source.uri)} {source.suite} is not good: {_reason(done.stderr)}",
                hint=f"its keys are expected in {', '.join(_names(source))}",
            )
        return (work / "Release").read_bytes()


def _names(source: Source) -> list[str]:
    return ["the key given inline" if "BEGIN PGP" in ring else ring for ring in source.signed_by]


def _reason(stderr: str) -> str:
    lines = [line.removeprefix("gpgv: ").strip() for line in stderr.splitlines()]
    telling = [line for line in lines if re.search(r"BAD|Can't|No public key|verify|no valid|failed|expired", line)]
    return (telling or lines or ["gpgv gives no reason"])[-1]


def _keyrings(source: Source, work: Path) -> list[Path]:
    """Return binary keyrings; gpgv reads no armor, so armored ones are unpacked into `work`."""
    rings: list[Path] = []
    for number, ring in enumerate(source.signed_by):
        if "BEGIN PGP" in ring:
            data = re.sub(r"^\.$", "", ring, flags=re.MULTILINE).encode()  # deb822 writes an empty line as a dot
        else:
            if not ring.startswith("/"):
                raise FailedPrecondition(
                    f"{source} is signed by the fingerprint {ring}; only keyring files are supported"
                )
            try:
                data = Path(ring).read_bytes()
            except OSError as error:
                raise FailedPrecondition(
                    f"the keyring of {source} cannot be read: {error.strerror}: {ring}",
                    hint="apt-get install debian-archive-keyring",
                ) from error
        if b"-----BEGIN PGP" in data:
            rings.append(work / f"ring{number}.gpg")
            rings[-1].write_bytes(dearmor(data))
        else:
            rings.append(Path(ring))
    return rings


def dearmor(text: bytes) -> bytes:
    """Return the binary form of armored keys (RFC 9580 section 6.2); several blocks are joined."""
    blocks = re.findall(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP", text, re.DOTALL)
    if not blocks:
        raise DataLoss("no armored public key found")
    keys = b""
    for block in blocks:
        lines = [line.strip() for line in block.splitlines()]
        # Headers (`Version: ...`) end at the first empty line; the line that begins with = is a checksum.
        body = lines[lines.index(b"") + 1 :] if b"" in lines else lines
        keys += base64.b64decode(b"".join(line for line in body if line and not line.startswith(b"=")))
    return keys
