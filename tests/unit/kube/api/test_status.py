import pytest

from kestrel.base.errors import KINDS, Conflict, InvalidArgument, KestrelError, NotFound
from kestrel.kube.api import scheme, status

POD = scheme.by_kind("", "v1", "Pod")
LEASE = scheme.by_kind("coordination.k8s.io", "v1", "Lease")


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (status.not_found(POD, "x"), 404, "NotFound", 'pods "x" not found'),
        (status.not_found(LEASE, "x"), 404, "NotFound", 'leases.coordination.k8s.io "x" not found'),
        (status.already_exists(POD, "x"), 409, "AlreadyExists", 'pods "x" already exists'),
        (
            status.conflict(POD, "x"),
            409,
            "Conflict",
            f'Operation cannot be fulfilled on pods "x": {status.STALE}',
        ),
        (
            status.invalid_object(POD, "x", [status.required("spec.containers")]),
            422,
            "Invalid",
            'Pod "x" is invalid: spec.containers: Required value',
        ),
        (status.forbidden(POD, "x", "no"), 403, "Forbidden", 'pods "x" is forbidden: no'),
        (status.forbidden(POD, "", "no"), 403, "Forbidden", "pods is forbidden: no"),
        (status.internal("x"), 500, "InternalError", "Internal error occurred: x"),
        (status.expired(), 410, "Expired", "The resourceVersion for the provided watch is too old."),
        (
            status.method_not_allowed(POD, "PUT"),
            405,
            "MethodNotAllowed",
            'PUT is not supported on resources of kind "pods"',
        ),
    ],
)
def test_refusals_have_kubernetes_words(error, code, reason, message):
    found = status.failure(error)
    assert (found["code"], found["reason"], found["message"]) == (code, reason, message)
    assert found["kind"] == "Status"
    assert found["status"] == "Failure"
    assert str(error) == message


def test_errors_keep_their_kind_so_that_callers_need_not_read_codes():
    assert isinstance(status.not_found(POD, "x"), NotFound)
    assert isinstance(status.conflict(POD, "x"), Conflict)
    assert isinstance(status.invalid_object(POD, "x", []), InvalidArgument)


def test_several_field_errors_are_listed_once_each():
    errors = [status.required("a"), status.invalid("b", "v", "why"), status.required("a")]
    found = status.failure(status.invalid_object(POD, "x", errors))
    assert found["message"] == 'Pod "x" is invalid: [a: Required value, b: Invalid value: "v": why]'
    assert found["details"]["causes"][1] == {
        "reason": "FieldValueInvalid",
        "message": 'Invalid value: "v": why',
        "field": "b",
    }


def test_field_errors_print_values_as_kubernetes_does():
    assert str(status.not_supported("f", "X", ["b", "a"])) == 'f: Unsupported value: "X": supported values: "a", "b"'
    assert str(status.duplicate("f", "n")) == 'f: Duplicate value: "n"'
    assert str(status.invalid("f", -1, "no")) == "f: Invalid value: -1: no"
    assert str(status.forbidden_field("f", "no")) == "f: Forbidden: no"
    assert str(status.too_long("f", 3)) == "f: Too long: may not be more than 3 bytes"


def test_every_kind_of_error_has_a_code():
    assert set(status.KIND_CODES) == set(KINDS)
    assert set(KINDS) == {cls.kind for cls in KestrelError.__subclasses__() if cls.kind in KINDS}


def test_an_error_from_below_becomes_a_status_with_its_hint():
    found = status.failure(NotFound("no such image `x`", hint="pull it"))
    assert (found["code"], found["message"]) == (404, "no such image `x` (pull it)")


def test_a_bug_does_not_show_its_insides():
    found = status.failure(ValueError("secret"))
    assert found["code"] == 500
    assert "secret" not in found["message"]


def test_a_stale_write_says_what_to_do():
    assert status.STALE == (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
