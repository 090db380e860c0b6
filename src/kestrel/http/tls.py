"""The node's private certificate authority, and TLS contexts made from it.

One directory (0700) holds the authority's key and certificate, and below `issued/` one file for every server identity
so that a restart shows the same certificate. Keys are P-256: small, quick to sign with, understood everywhere.
Leaf certificates live a year and are issued anew when less than a third of that is left, when the names asked for
are others, or when the authority changed; `refresh` does it in running contexts, so nothing has to be restarted.

Time comes from a `Clock`, so that a test can let a certificate grow old.
"""

import hashlib
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.errors import DataLoss, InvalidArgument
from kestrel.base.files import locked, private_directory, replace

_AUTHORITY_LIFE = timedelta(days=3650)
_LEAF_LIFE = timedelta(days=365)
_RENEW_BEFORE = _LEAF_LIFE / 3
_SKEW = timedelta(minutes=5)  # a client whose clock is a little behind should still accept us


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate (with its authority's behind it) and its private key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @property
    def expires(self) -> datetime:
        """When the certificate ends, in UTC."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a server's context for a certificate (with its chain) and key that somebody else made, as PEM files."""
    context = _server_context()
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"cannot use the certificate {certificate} with the key {key}: {error.strerror or error}",
            hint="both have to be PEM files, and belong to each other",
        ) from error
    return context


class Authority:
    """Signs the certificates of this node's servers and of their clients."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock):
        self._directory = directory
        self._certificate = certificate
        self._key = key
        self._clock = clock
        self._contexts: list[tuple[ssl.SSLContext, tuple[str, ...]]] = []

    @classmethod
    def load_or_create(
        cls, directory: Path, *, common_name: str = "kestrel", clock: "Clock | None" = None
    ) -> "Authority":
        """Open the authority kept in `directory`, or make one there. Two processes at once get the same one.

        Raises DataLoss when the files are there but cannot be read.
        """
        clock = clock or SystemClock()
        private_directory(directory)
        with locked(directory / "lock"):
            bundle = directory / "authority.pem"
            if not bundle.exists():
                made = _self_signed(common_name, clock.now())
                replace(bundle, made.key + made.certificate)
                replace(directory / "ca.crt", made.certificate, mode=0o644)
            data = bundle.read_bytes()
        try:
            certificate = x509.load_pem_x509_certificate(data)
            key = load_pem_private_key(data, password=None)
        except ValueError as error:
            raise DataLoss(
                f"cannot read the certificate authority in {bundle}",
                hint="restore the file, or remove its directory: clients then need the new certificate",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise DataLoss(f"{bundle} holds a key that is not ours", hint="remove the directory to make a new one")
        return cls(directory, certificate, key, clock)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate as PEM: what clients have to trust (`certificate-authority-data`)."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def certificate_path(self) -> Path:
        """Where the authority's certificate lies, for `--cacert` and its like."""
        return self._directory / "ca.crt"

    def server_context(
        self, names: Sequence[str], addresses: Sequence[str] = (), *, ask_clients: bool = False
    ) -> ssl.SSLContext:
        """Return a context for a server reached under these DNS names and literal addresses.

        With `ask_clients` a client may show a certificate; one that this authority did not sign is refused, none at
        all is let through (the server decides what an anonymous client may do).
        """
        subjects = tuple(dict.fromkeys([*names, *addresses]))
        context = _server_context()
        if ask_clients:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=self.certificate.decode())
        context.load_cert_chain(self._issued(subjects))
        self._contexts.append((context, subjects))
        return context

    def client_context(self, client: "Certificate | None" = None) -> ssl.SSLContext:
        """Return a context for a client that trusts this authority only, and shows `client` when given."""
        context = ssl.create_default_context(cadata=self.certificate.decode())
        if client is not None:
            path = self._directory / f".client-{os.getpid()}-{os.urandom(4).hex()}.pem"
            replace(path, client.key + client.certificate, durable=False)  # ssl takes keys from files only
            try:
                context.load_cert_chain(path)
            finally:
                path.unlink()
        return context

    def client_certificate(self, name: str, organisations: Sequence[str] = ()) -> Certificate:
        """Sign a new client certificate: common name `name`, groups as organisations (as Kubernetes reads them)."""
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organisations]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
        return self._sign(x509.Name(subject), ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def server_certificate(self, names: Sequence[str], addresses: Sequence[str] = ()) -> Certificate:
        """Sign a new server certificate for these DNS names and literal addresses."""
        subjects = tuple(dict.fromkeys([*names, *addresses]))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (subjects or ("kestrel",))[0][:64])])
        return self._sign(subject, ExtendedKeyUsageOID.SERVER_AUTH, subjects)

    def refresh(self) -> None:
        """Issue anew what is about to expire; running servers use it for their next connections. Call daily."""
        for context, subjects in self._contexts:
            context.load_cert_chain(self._issued(subjects))

    def _issued(self, subjects: tuple[str, ...]) -> Path:
        """Return a file with key and certificate for these subjects that is good for a while yet."""
        folder = private_directory(self._directory / "issued")
        path = folder / f"{hashlib.sha256(repr(subjects).encode()).hexdigest()[:16]}.pem"
        with locked(self._directory / "lock"):
            if not self._still_good(path):
                made = self.server_certificate(subjects)
                replace(path, made.key + made.certificate)
        return path

    def _still_good(self, path: Path) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            certificate.verify_directly_issued_by(self._certificate)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the remedy is a new one
            return False
        return certificate.not_valid_after_utc - self._clock.now() > _RENEW_BEFORE

    def _sign(self, subject: x509.Name, usage: x509.ObjectIdentifier, subjects: Sequence[str]) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock.now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + _LEAF_LIFE, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if subjects:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(subject) for subject in subjects]), critical=False
            )
        signed = builder.sign(self._key, hashes.SHA256())
        return Certificate(signed.public_bytes(Encoding.PEM) + self.certificate, _key_pem(key))


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _self_signed(common_name: str, now: datetime) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities must not share a name: a client that knows the old one would report a bad signature.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{common_name} {os.urandom(4).hex()}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _general_name(text: str) -> x509.GeneralName:
    address = _literal(text)
    return x509.IPAddress(address) if address is not None else x509.DNSName(text)


def _literal(text: str) -> "IPv4Address | IPv6Address | None":
    try:
        return ip_address(text)
    except ValueError:
        return None
