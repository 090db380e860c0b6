"""Debian version numbers in the order dpkg gives them (`man 7 deb-version`).

A version is `[epoch:]upstream[-revision]`. Both parts are compared by turns: a run of non-digits, in which `~` sorts
before everything (even the end) and letters before other characters, then a run of digits as a number.
"""

import re
from functools import lru_cache

_PIECE = re.compile(r"([^0-9]*)([0-9]*)")

Key = tuple[int, tuple[tuple[tuple[int, ...], int], ...], tuple[tuple[tuple[int, ...], int], ...]]


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _pieces(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    # The closing 0 is the end of the run: it sorts after `~` and before any other character.
    pieces = [
        ((*(_weight(c) for c in text), 0), int(digits or "0"))
        for text, digits in _PIECE.findall(part)
        if text or digits
    ]
    # `1.0` and `1.0` followed by nothing must be equal, and `1` < `1a` but `1` > `1~`: an end is an empty run and 0.
    pieces.append(((0,), 0))
    return tuple(pieces)


@lru_cache(maxsize=8192)
def key(version: str) -> Key:
    """Return something that sorts as `dpkg --compare-versions` would; a malformed version sorts by its text."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return (int(epoch) if epoch.isdigit() else 0, _pieces(upstream), _pieces(revision))


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1, as `left` is older than, equal to or newer than `right`."""
    a, b = key(left), key(right)
    return (a > b) - (a < b)


def satisfies(version: str, operator: str, wanted: str) -> bool:
    """Tell whether `version` stands in relation `operator` (`<< <= = >= >>`) to `wanted`; no operator: always."""
    order = compare(version, wanted) if operator else 0
    match operator:
        case "":
            return True
        case "<<":
            return order < 0
        case "<=" | "<":  # a lone < or > is the old spelling of <= and >= (deb-control, "Depends")
            return order <= 0
        case "=":
            return order == 0
        case ">=" | ">":
            return order >= 0
        case ">>":
            return order > 0
        case _:
            return False
