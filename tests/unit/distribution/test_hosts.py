"""Which server answers for a name, how it is spoken to, and what its refusals mean."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from kestrel.base.errors import (
    KestrelError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from kestrel.distribution.hosts import Endpoint, Hosts, Settings, hostname
from kestrel.distribution.mirrors import PULL
from kestrel.distribution.refusals import codes, refusal, retry_after


def bases(domain: str, *insecure: str) -> list[str]:
    return [endpoint.base for endpoint in endpoints(Hosts(Settings(insecure_registries=insecure)), domain)]


def endpoints(hosts: Hosts, domain: str) -> Sequence[Endpoint]:
    (host,) = hosts.of(domain, "team/app", PULL)
    return hosts.candidates(host)


def test_docker_hubs_api_has_another_name_than_docker_hub() -> None:
    assert bases("docker.io") == ["https://registry-1.docker.io"]


def test_a_registry_elsewhere_has_to_speak_tls() -> None:
    assert bases("reg.example:5000") == ["https://reg.example:5000"]


@pytest.mark.parametrize("domain", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"])
def test_this_machine_may_speak_plain_http(domain: str) -> None:
    assert bases(domain) == [f"http://{domain}", f"https://{domain}"]


def test_listed_hosts_and_networks_may_fall_back_to_plain_http() -> None:
    for domain, listed in (("reg.lan", "reg.lan"), ("reg.lan:5000", "reg.lan:5000"), ("10.1.2.3:80", "10.0.0.0/8")):
        assert bases(domain, listed) == [f"https://{domain}", f"http://{domain}"]
    assert bases("reg.lan.example", "reg.lan") == ["https://reg.lan.example"]
    assert bases("11.1.2.3", "10.0.0.0/8") == ["https://11.1.2.3"]
    assert hostname("[::1]:5000") == "::1"


def test_what_answered_is_remembered() -> None:
    hosts = Hosts()
    _, second = endpoints(hosts, "localhost:1")
    hosts.choose(second)
    assert endpoints(hosts, "localhost:1") == (second,)


def test_an_unverified_certificate_is_accepted_only_where_listed() -> None:
    assert [endpoint.tls for endpoint in endpoints(Hosts(), "reg.example")] == [True]
    listed = Hosts(Settings(insecure_registries=("reg.example",)))
    assert [endpoint.tls for endpoint in endpoints(listed, "reg.example")] == [False, True]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (403, PermissionDenied),
        (404, NotFound),
        (429, ResourceExhausted),
        (413, ResourceExhausted),
        (503, Unavailable),
        (302, Unavailable),
        (418, KestrelError),
    ],
)
def test_the_status_decides_the_kind_and_the_sentence_names_host_and_thing(
    status: int, kind: type[KestrelError]
) -> None:
    error = refusal(status, {}, b"", domain="reg.example", what="image a/b:c")
    assert isinstance(error, kind)
    assert "reg.example" in str(error)
    assert "image a/b:c" in str(error)
    assert error.context["status"] == status


def test_what_the_registry_says_is_shown_made_harmless_and_short() -> None:
    body = b'{"errors":[{"code":"DENIED","message":"no\\u001b[31m way"},{"code":"TOOMANYREQUESTS"}]}'
    shown = str(refusal(403, {}, body, domain="r", what="x"))
    assert shown.endswith(": no?[31m way; toomanyrequests")
    assert codes(body) == ["DENIED", "TOOMANYREQUESTS"]
    long = b'{"errors":[{"message":"' + b"x" * 5000 + b'"}]}'
    assert len(str(refusal(403, {}, long, domain="r", what="x"))) < 400


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"errors": 3}', b'{"errors": [3]}', b'{"errors": {"a": 1}}'])
def test_a_body_that_is_not_the_specs_is_no_reason_to_fail(body: bytes) -> None:
    assert codes(body) == []


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after({"Retry-After": "7"}, Clock()) == 7
    assert retry_after({"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"}, Clock()) == 60
    assert retry_after({"Retry-After": "Thu, 01 Jan 2020 00:01:00 GMT"}, Clock()) == 0
    assert retry_after({"Retry-After": "soon"}, Clock()) is None
    assert retry_after({}, Clock()) is None
