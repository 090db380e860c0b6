"""The private authority: what it signs verifies, what it stored is reused, what is about to expire is replaced."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientConnectorCertificateError, web
from cryptography import x509
from cryptography.x509.oid import NameOID

from kestrel.base.errors import DataLoss, InvalidArgument, Unavailable
from kestrel.http.client import explain, session
from kestrel.http.server import Server, Tcp
from kestrel.http.tls import Authority, context_of


class HandMovedClock:
    def __init__(self) -> None:
        self.moment = datetime.now(UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


async def whoami(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    shown = request.transport.get_extra_info("peercert") or {}
    names = {key: value for part in shown.get("subject", ()) for key, value in part}
    return web.json_response(names)


async def test_a_client_that_trusts_the_authority_reaches_the_server_by_name_and_by_address(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "pki")
    context = authority.server_context(["localhost"], ["127.0.0.1"])
    async with Server(whoami, [Tcp(tls=context)]) as server, session(tls=authority.client_context()) as client:
        port = server.addresses[0].rsplit(":", 1)[1]
        for host in ("127.0.0.1", "localhost"):
            async with client.get(f"https://{host}:{port}/") as answer:
                assert await answer.json() == {}


async def test_a_client_certificate_carries_user_and_groups(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path)
    context = authority.server_context(["localhost"], ask_clients=True)
    mine = authority.client_context(authority.client_certificate("admin", ["system:masters"]))
    async with Server(whoami, [Tcp(host="localhost", tls=context)]) as server, session(tls=mine) as client:
        port = server.addresses[0].rsplit(":", 1)[1]
        async with client.get(f"https://localhost:{port}/") as answer:
            assert await answer.json() == {"commonName": "admin", "organizationName": "system:masters"}
    assert not list(tmp_path.glob(".client-*"))


async def test_a_stranger_does_not_trust_the_authority_and_is_told_why(tmp_path: Path) -> None:
    context = Authority.load_or_create(tmp_path).server_context(["localhost"])
    async with Server(whoami, [Tcp(tls=context)]) as server, session() as client:
        with pytest.raises(ClientConnectorCertificateError) as caught:
            await client.get(server.addresses[0])
        sentence = explain(caught.value, server.addresses[0])
        assert isinstance(sentence, Unavailable)
        assert "not trusted" in str(sentence)
        assert sentence.hint
        await asyncio.sleep(0)


async def test_speaking_tls_to_a_plain_server_is_named_as_that() -> None:
    async with Server(whoami, [Tcp()]) as server, session() as client:
        url = server.addresses[0].replace("http://", "https://")
        with pytest.raises((ssl.SSLError, OSError)) as caught:
            await client.get(url)
        assert "does not speak TLS" in str(explain(caught.value, url))


def test_a_second_opening_gives_the_same_authority_and_the_same_server_certificate(tmp_path: Path) -> None:
    first = Authority.load_or_create(tmp_path)
    first.server_context(["a.example"])
    issued = {path: path.read_bytes() for path in (tmp_path / "issued").iterdir()}
    second = Authority.load_or_create(tmp_path)
    second.server_context(["a.example"])
    assert second.certificate == first.certificate == second.certificate_path.read_bytes()
    assert {path: path.read_bytes() for path in (tmp_path / "issued").iterdir()} == issued
    assert len(issued) == 1


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "pki").server_context(["a.example"])
    files = list((tmp_path / "pki").rglob("*.pem"))
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700


def test_a_certificate_near_its_end_is_issued_anew_and_loaded_into_running_contexts(tmp_path: Path) -> None:
    clock = HandMovedClock()
    authority = Authority.load_or_create(tmp_path, clock=clock)
    authority.server_context(["a.example"])
    [path] = (tmp_path / "issued").iterdir()
    before = path.read_bytes()
    authority.refresh()
    assert path.read_bytes() == before
    clock.moment += timedelta(days=300)
    authority.refresh()
    assert path.read_bytes() != before
    assert x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc > clock.moment + timedelta(days=300)


def test_a_certificate_of_an_earlier_authority_is_not_reused(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path).server_context(["a.example"])
    [path] = (tmp_path / "issued").iterdir()
    (tmp_path / "authority.pem").unlink()
    renewed = Authority.load_or_create(tmp_path)
    renewed.server_context(["a.example"])
    issuer = x509.load_pem_x509_certificate(path.read_bytes()).issuer
    assert issuer == x509.load_pem_x509_certificate(renewed.certificate).subject


def test_a_damaged_authority_is_reported_and_not_replaced(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path)
    (tmp_path / "authority.pem").write_bytes(b"gone")
    with pytest.raises(DataLoss, match=r"authority\.pem"):
        Authority.load_or_create(tmp_path)
    assert (tmp_path / "authority.pem").read_bytes() == b"gone"


def test_names_and_addresses_land_in_the_subject_alternative_names(tmp_path: Path) -> None:
    made = Authority.load_or_create(tmp_path).server_certificate(["kubernetes", "node-1"], ["10.0.0.1", "::1"])
    certificate = x509.load_pem_x509_certificate(made.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kubernetes", "node-1"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "::1"]
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "kubernetes"
    assert b"PRIVATE" not in repr(made).encode()


def test_a_certificate_made_elsewhere_serves_and_a_wrong_one_is_a_sentence(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "authority")
    for name in ("one", "two"):
        made = authority.server_certificate(["localhost"])
        (tmp_path / f"{name}.crt").write_bytes(made.certificate)
        (tmp_path / f"{name}.key").write_bytes(made.key)
    assert context_of(tmp_path / "one.crt", tmp_path / "one.key").minimum_version == ssl.TLSVersion.TLSv1_2
    for key in ("two.key", "missing.key", "one.crt"):
        with pytest.raises(InvalidArgument, match="cannot use the certificate"):
            context_of(tmp_path / "one.crt", tmp_path / key)
