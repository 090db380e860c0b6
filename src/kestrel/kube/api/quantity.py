"""Resource quantities: `100m`, `1Gi`, `0.5`, `2e3`, as exact numbers and in Kubernetes' canonical form.

The grammar and the canonical form are those of the Quantity type's own documentation (kubernetes.io, "Quantity"): no
fraction digits, the largest suffix that needs none, and the suffix family of the input is kept, except that binary
suffixes below 1024 become decimal. Precision beyond 1n is rounded up. A server stores the canonical form.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final

from kestrel.base.errors import InvalidArgument

_QUANTITY = re.compile(r"([+-]?)(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d{1,3})?\Z")
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_DECIMAL_NAMES: Final = {power: name for name, power in _DECIMAL.items()}
_BINARY_NAMES: Final = {power: name for name, power in _BINARY.items()}
_NANO: Final = Fraction(1, 10**9)
_MAX_EXPONENT: Final = 36

PATTERN: Final = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
"""The expression Kubernetes names when a quantity is malformed."""


def _split(text: str) -> tuple[Fraction, str]:
    found = _QUANTITY.match(text)
    if found is None:
        raise InvalidArgument(f"quantities must match the regular expression '{PATTERN}'", quantity=text)
    sign, digits, suffix = found.groups(default="")
    value = Fraction(digits if digits[-1] != "." else digits[:-1])
    if suffix in _BINARY:
        value *= 1024 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        value *= Fraction(1000) ** _DECIMAL[suffix]
    else:
        exponent = int(suffix[1:])
        if abs(exponent) > _MAX_EXPONENT:
            raise InvalidArgument(f"the exponent of quantity {text!r} is too large")
        value *= Fraction(10) ** exponent
    return (-value if sign == "-" else value), suffix


@lru_cache(maxsize=1024)
def parse(text: str | float) -> Fraction:
    """The exact number a quantity stands for: cores, bytes, or whatever its field counts. InvalidArgument if none."""
    return _split(str(text))[0]


def valid(text: object) -> bool:
    """Whether this is a quantity."""
    return isinstance(text, str | int | float) and not isinstance(text, bool) and bool(_QUANTITY.match(str(text)))


@lru_cache(maxsize=1024)
def canonical(text: str | float) -> str:
    """The form in which a server stores this quantity: `1000m` is `1`, `0.5` is `500m`, `1024Mi` is `1Gi`."""
    value, suffix = _split(str(text))
    if suffix in _BINARY and abs(value) >= 1024:
        return _printed(value, 1024, 0, _BINARY_NAMES | {0: ""})
    if suffix[:1] in ("e", "E") and suffix not in _DECIMAL:
        return _exponent(value)
    return _printed(value, 1000, -3, _DECIMAL_NAMES)


def formatted(value: Fraction | int, *, binary: bool = False) -> str:
    """The canonical text of a number; binary suffixes suit bytes."""
    value = Fraction(value)
    if binary and abs(value) >= 1024:
        return _printed(value, 1024, 0, _BINARY_NAMES | {0: ""})
    return _printed(value, 1000, -3, _DECIMAL_NAMES)


def _printed(value: Fraction, base: int, lowest: int, names: dict[int, str]) -> str:
    unit = _NANO if base == 1000 else Fraction(1)
    value = _rounded_up(value, unit)
    if not value:
        return "0"
    power = max(names)
    while power > lowest and (value / Fraction(base) ** power).denominator != 1:
        power -= 1
    return f"{(value / Fraction(base) ** power).numerator}{names[power]}"


def _exponent(value: Fraction) -> str:
    value = _rounded_up(value, _NANO)
    if not value:
        return "0"
    power = 36
    while power > -9 and (value / Fraction(10) ** power).denominator != 1:
        power -= 3
    mantissa = (value / Fraction(10) ** power).numerator
    return f"{mantissa}e{power}" if power else str(mantissa)


def _rounded_up(value: Fraction, unit: Fraction) -> Fraction:
    """The next multiple of the unit away from zero."""
    steps = abs(value) / unit
    whole = -(-steps.numerator // steps.denominator)
    return unit * whole * (1 if value >= 0 else -1)
