"""The policy in one table, and tokens that end."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from kestrel.kube.apiserver.auth import Attributes, allowed
from kestrel.kube.apiserver.call import ANONYMOUS, AUTHENTICATED, MASTERS, Caller
from kestrel.kube.apiserver.tokens import TokenSigner

ADMIN = Caller(name="admin", groups=(MASTERS, AUTHENTICATED))
JANE = Caller(name="jane", groups=("developers", AUTHENTICATED))
PODS = Attributes(verb="list", resource="pods")
REVIEW = Attributes(verb="create", group="authorization.k8s.io", resource="selfsubjectaccessreviews")


def path(text: str, verb: str = "get") -> Attributes:
    return Attributes(verb=verb, path=text)


@pytest.mark.parametrize(
    ("caller", "asked", "expected"),
    [
        (ADMIN, PODS, True),
        (ADMIN, path("/metrics"), True),
        (JANE, PODS, False),
        (JANE, REVIEW, True),
        (JANE, path("/api/v1"), True),
        (JANE, path("/apis"), True),
        (JANE, path("/openapi/v3/api/v1"), True),
        (JANE, path("/metrics"), False),
        (JANE, path("/apiserver"), False),
        (JANE, path("/api", "delete"), False),
        (ANONYMOUS, path("/version"), True),
        (ANONYMOUS, path("/healthz"), True),
        (ANONYMOUS, path("/api"), False),
        (ANONYMOUS, REVIEW, False),
        (ANONYMOUS, PODS, False),
    ],
)
def test_the_policy(caller: Caller, asked: Attributes, expected: bool) -> None:
    assert allowed(caller, asked) is expected


class HandClock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()


ACCOUNT = {"metadata": {"namespace": "default", "name": "robot", "uid": "u"}}


def test_a_token_is_good_for_its_time_and_its_audience(tmp_path) -> None:
    clock = HandClock()
    signer = TokenSigner.load_or_create(tmp_path / "key", clock=clock)
    token, end = signer.sign(ACCOUNT, ["vault"], 600)
    assert end == "2026-01-01T00:10:00Z"
    assert signer.read(token) is None
    claims = signer.read(token, ["vault"])
    assert claims is not None
    assert claims["sub"] == "system:serviceaccount:default:robot"
    clock.moment += timedelta(seconds=601)
    assert signer.read(token, ["vault"]) is None


def test_a_token_survives_a_restart_and_no_change(tmp_path) -> None:
    token, _ = TokenSigner.load_or_create(tmp_path / "key").sign(ACCOUNT, [], 600)
    again = TokenSigner.load_or_create(tmp_path / "key")
    assert again.read(token) is not None
    head, body, signature = token.split(".")
    for broken in (f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.", "x.y.z", "", "…"):
        assert again.read(broken) is None
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_token_signed_by_another_key_or_by_none_is_nobodys(tmp_path) -> None:
    other, _ = TokenSigner.load_or_create(tmp_path / "other").sign(ACCOUNT, [], 600)
    signer = TokenSigner.load_or_create(tmp_path / "key")
    assert signer.read(other) is None
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    assert signer.read(f"{head}.{other.split('.')[1]}.") is None
