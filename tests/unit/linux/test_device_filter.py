"""The assembled program, run by a few lines of an interpreter for the instructions it uses."""

import struct
from itertools import product

import pytest

from kestrel.linux.cgroups import DeviceRule
from kestrel.linux.cgroups.device_filter import assemble


def run(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    at = 0
    for _ in range(1000):
        code, numbers, offset, value = struct.unpack_from("<BBhi", program, at * 8)
        dst, src = numbers & 15, numbers >> 4
        at += 1
        if code == 0x61:
            registers[dst] = context[offset]
        elif code == 0xBC:
            registers[dst] = registers[src]
        elif code in (0xB4, 0xB7):
            registers[dst] = value
        elif code == 0x54:
            registers[dst] &= value
        elif code == 0x74:
            registers[dst] >>= value
        elif code == 0x56:
            at += offset if registers[dst] != value else 0
        elif code == 0x16:
            at += offset if registers[dst] == value else 0
        elif code == 0x5E:
            at += offset if registers[dst] != registers[src] else 0
        elif code == 0x95:
            return registers[0]
    raise AssertionError("the program does not end")


def allowed(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> bool:
    """What the rules mean: the last one that matches decides."""
    verdict = False
    for rule in rules:
        same = rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        fits = set(access) <= set(rule.access) if rule.allow else bool(set(access) & set(rule.access))
        if same and fits:
            verdict = rule.allow
    return verdict


RULES = [
    [],
    [DeviceRule(allow=False), DeviceRule(allow=True, kind="c", major=1, minor=3)],
    [DeviceRule(allow=True), DeviceRule(allow=False, kind="c", major=1, minor=3, access="w")],
    [DeviceRule(allow=True, kind="c", access="m"), DeviceRule(allow=True, kind="b", major=8, access="r")],
    [DeviceRule(allow=True, kind="c", major=1, minor=3, access="rw"), DeviceRule(allow=False, kind="c", major=1)],
]


@pytest.mark.parametrize("rules", RULES)
def test_the_program_decides_as_the_rules_say(rules: list[DeviceRule]) -> None:
    program = assemble(rules)
    letters = {"m": 1, "r": 2, "w": 4}
    for (kind, number), access, major, minor in product(
        (("b", 1), ("c", 2)), ("r", "w", "m", "rw", "rwm"), (1, 8), (3, 5)
    ):
        bits = sum(letters[letter] for letter in access)
        assert run(program, number, bits, major, minor) == allowed(rules, kind, access, major, minor)
