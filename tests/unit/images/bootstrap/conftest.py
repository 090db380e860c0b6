"""A small Debian archive on disk: packages, indexes, a signature, all made here, so that every link can be broken."""

import hashlib
import io
import lzma
import struct
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kestrel.images.bootstrap.sources import architecture

DATE = "Sat, 04 Jul 2026 10:00:00 UTC"
STAMP = 1_700_000_000


def packet(tag: int, body: bytes) -> bytes:
    """An OpenPGP packet with a four-byte length (RFC 9580 section 4.2)."""
    return bytes([0xC0 | tag, 0xFF]) + struct.pack("!I", len(body)) + body


def mpi(number: int) -> bytes:
    return struct.pack("!H", number.bit_length()) + number.to_bytes((number.bit_length() + 7) // 8, "big")


class Key:
    """An RSA key that signs as `gpg --clearsign` does."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._private.public_key().public_numbers()
        self._public = bytes([4]) + struct.pack("!I", STAMP) + bytes([1]) + mpi(numbers.n) + mpi(numbers.e)
        framed = b"\x99" + struct.pack("!H", len(self._public)) + self._public
        self._fingerprint = hashlib.sha1(framed, usedforsecurity=False).digest()
        self._framed = framed

    def keyring(self) -> bytes:
        user = b"test archive"
        certified = self._framed + b"\xb4" + struct.pack("!I", len(user)) + user
        return packet(6, self._public) + packet(13, user) + self._signature(0x13, certified)

    def clearsign(self, text: str) -> bytes:
        canonical = "\r\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))
        signature = self._signature(0x01, canonical.encode())
        return (
            b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
            + text.rstrip("\n").encode()
            + b"\n"
            + armor(signature)
        )

    def _signature(self, kind: int, data: bytes) -> bytes:
        made = bytes([5, 2]) + struct.pack("!I", int(time.time()))
        issuer = bytes([22, 33, 4]) + self._fingerprint
        hashed = bytes([4, kind, 1, 8]) + struct.pack("!H", len(made + issuer)) + made + issuer
        signed = data + hashed + bytes([4, 0xFF]) + struct.pack("!I", len(hashed))
        digest = hashlib.sha256(signed).digest()
        issuer_id = bytes([9, 16]) + self._fingerprint[-8:]
        value = self._private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return packet(
            2, hashed + struct.pack("!H", len(issuer_id)) + issuer_id + digest[:2] + mpi(int.from_bytes(value, "big"))
        )


def armor(data: bytes, kind: str = "SIGNATURE") -> bytes:
    import base64

    checksum = 0xB704CE  # CRC-24 (RFC 9580 section 6.1.1): gpgv reads on into the next line without it
    for byte in data:
        checksum ^= byte << 16
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x1864CFB if checksum & 0x800000 else 0)
            checksum &= 0xFFFFFF
    body = base64.encodebytes(data).decode() + "=" + base64.b64encode(checksum.to_bytes(3, "big")).decode()
    return f"-----BEGIN PGP {kind}-----\n\n{body}\n-----END PGP {kind}-----\n".encode()


@dataclass(frozen=True)
class File:
    """What a package holds under one name: bytes, or a link's target."""

    data: bytes = b""
    link: str = ""
    hard: str = ""
    mode: int = 0o644
    mtime: int = STAMP
    directory: bool = False


def deb(control: str, files: Mapping[str, File], scripts: Mapping[str, str], compression: str = "xz") -> bytes:
    """Make a .deb."""
    members = {"control": control, **scripts}
    first = _tar({f"./{name}": File(text.encode()) for name, text in members.items()})
    second = _tar({f"./{name}": file for name, file in files.items()})
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": lzma.compress(first)}
    if compression == "zst":
        import zstandard

        parts["data.tar.zst"] = zstandard.compress(second)
    elif compression == "":
        parts["data.tar"] = second
    else:
        parts["data.tar.xz"] = lzma.compress(second)
    out = b"!<arch>\n"
    for name, data in parts.items():
        out += (
            f"{name:<16}{STAMP:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return out


def _tar(files: Mapping[str, File]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, file in files.items():
            info = tarfile.TarInfo(name)
            info.mode, info.mtime, info.size = file.mode, file.mtime, len(file.data)
            if file.directory:
                info.type, info.mode = tarfile.DIRTYPE, file.mode if file.mode != 0o644 else 0o755
            elif file.link:
                info.type, info.linkname = tarfile.SYMTYPE, file.link
            elif file.hard:
                info.type, info.linkname = tarfile.LNKTYPE, file.hard
            tar.addfile(info, io.BytesIO(file.data) if file.data else None)
    return out.getvalue()


@dataclass
class Archive:
    """A mirror under `root` and an apt configuration under `apt` that names it."""

    root: Path
    apt: Path
    key: Key
    release_fields: dict[str, str] = field(
        default_factory=lambda: {"Origin": "Debian", "Codename": "test", "Date": DATE}
    )
    _stanzas: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        files: Mapping[str, File] | None = None,
        *,
        version: str = "1.0",
        fields: str = "",
        scripts: Mapping[str, str] | None = None,
        compression: str = "xz",
    ) -> Path:
        """Put a package into the pool; `fields` are more lines of its control file."""
        arch = architecture()
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n{fields}Description: {name}\n"
        data = deb(control, files or {}, scripts or {}, compression)
        path = self.root / "pool" / f"{name}_{version.replace(':', '%3a')}_{arch}.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self._stanzas.append(
            f"{control}Filename: pool/{path.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
        return path

    def publish(self, key: Key | None = None) -> None:
        """Write Packages.xz and InRelease, signed."""
        suite = self.root / "dists" / "test"
        listed = suite / "main" / f"binary-{architecture()}" / "Packages.xz"
        listed.parent.mkdir(parents=True, exist_ok=True)
        data = lzma.compress("\n".join(self._stanzas).encode())
        listed.write_bytes(data)
        lines = [f"{name}: {value}" for name, value in self.release_fields.items()]
        lines += ["SHA256:", f" {hashlib.sha256(data).hexdigest()} {len(data)} {listed.relative_to(suite)}"]
        (suite / "InRelease").write_bytes((key or self.key).clearsign("\n".join(lines) + "\n"))

    def configure(self, more: str = "") -> None:
        """Write the apt configuration."""
        (self.apt / "sources.list.d").mkdir(parents=True, exist_ok=True)
        (self.apt / "test.gpg").write_bytes(self.key.keyring())
        (self.apt / "sources.list.d" / "test.sources").write_text(
            f"Types: deb\nURIs: file:{self.root}\nSuites: test\nComponents: main\n"
            f"Signed-By: {self.apt}/test.gpg\n{more}"
        )


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture(scope="session")
def stranger() -> Key:
    return Key()


@pytest.fixture
def new_file() -> type[File]:
    return File


@pytest.fixture
def archive(tmp_path: Path, key: Key) -> Archive:
    """An archive with the least a root filesystem needs."""
    made = Archive(tmp_path / "mirror", tmp_path / "apt", key)
    made.configure()
    made.add(
        "base-files",
        {
            "": File(directory=True),
            "bin/": File(directory=True),
            "etc/": File(directory=True),
            "etc/os-release": File(link="../usr/lib/os-release"),
            "usr/lib/os-release": File(b"ID=test\n"),
            "tmp/": File(directory=True, mode=0o1777),
            "usr/share/base-files/profile": File(b"PATH=/bin\n"),
        },
        fields="Essential: yes\n",
    )
    made.add(
        "base-passwd",
        {
            "usr/share/base-passwd/passwd.master": File(b"root:*:0:0:root:/root:/bin/bash\n"),
            "usr/share/base-passwd/group.master": File(b"root:*:0:\n"),
        },
        fields="Essential: yes\n",
    )
    made.add(
        "dash",
        {"bin/": File(directory=True), "bin/dash": File(b"#!dash", mode=0o755), "bin/sh": File(link="dash")},
        fields="Essential: yes\nDepends: libc6 (>= 2.0)\n",
    )
    made.add("libc6", {"lib64/ld.so": File(b"loader", mode=0o755)}, version="2.36-9", fields="Multi-Arch: same\n")
    return made
