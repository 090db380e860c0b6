from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.kube.api import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("100m", Fraction(1, 10)),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("2e3", 2000),
        ("1E", 10**18),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("-1k", -1000),
        ("0", 0),
        ("1n", Fraction(1, 10**9)),
        ("+3", 3),
    ],
)
def test_quantities_are_exact_numbers(text, value):
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1500Mi", "1500Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("12e2", "1200"),
        ("0", "0"),
        ("0Gi", "0"),
        ("64Mi", "64Mi"),
        ("0.0000000001", "1n"),
        ("100m", "100m"),
        ("1M", "1M"),
        (2, "2"),
        (0.25, "250m"),
        ("-1024Ki", "-1Mi"),
    ],
)
def test_a_server_stores_the_canonical_form(text, stored):
    assert quantity.canonical(text) == stored


@pytest.mark.parametrize("text", ["", "a", "1x", "1 Gi", "--1", "1e9999", "1e99", "1ki", ".", "1" * 60, "1mi"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(InvalidArgument):
        quantity.parse(text)


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "e3", "E-2", "P"]),
)
def test_the_canonical_form_is_the_same_number_and_final(number, suffix):
    text = f"{number}{suffix}"
    stored = quantity.canonical(text)
    assert quantity.parse(stored) == quantity.parse(text)
    assert quantity.canonical(stored) == stored or suffix.lower().startswith("e")


def test_numbers_print_as_quantities():
    assert quantity.formatted(2**31, binary=True) == "2Gi"
    assert quantity.formatted(Fraction(1, 4)) == "250m"
    assert quantity.formatted(4) == "4"
