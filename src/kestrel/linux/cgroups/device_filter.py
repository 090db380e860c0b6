"""Device control of cgroup v2: an eBPF program that says which device nodes a group may use.

Version 2 has no file for it; the kernel asks a program attached to the group at every open and mknod (`man 2 bpf`,
BPF_PROG_TYPE_CGROUP_DEVICE; `linux/bpf.h`, `struct bpf_cgroup_dev_ctx`). The program is assembled here by hand: it
loads kind, access and numbers, and compares them with each rule, the last rule first, since the last match wins.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

from kestrel.linux import abi, syscalls
from kestrel.linux.cgroups.values import DeviceRule

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(abi.MACHINE, -1)
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_QUERY, _PROG_GET_FD_BY_ID = 5, 8, 9, 16, 13
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# Opcodes (`man 2 bpf`, Documentation/bpf/instruction-set): class | source | operation
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + off)
_MOVE = 0xBC  # 32-bit dst = src
_MOVE_NUMBER = 0xB4  # 32-bit dst = imm
_MOVE_NUMBER_64 = 0xB7
_AND = 0x54  # 32-bit dst &= imm
_SHIFT_RIGHT = 0x74  # 32-bit dst >>= imm
_JUMP_UNEQUAL = 0x56  # 32-bit, with imm
_JUMP_UNEQUAL_REGISTERS = 0x5E  # 32-bit
_EXIT = 0x95


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """Return the program for the rules. Pure. R1 is the context; 1 allows, 0 denies, and nothing matching denies."""
    program = [
        _instruction(_LOAD_WORD, 2, 1, 0),  # r2 = access_type: kind in the low half, access in the high one
        _instruction(_MOVE, 3, 2),
        _instruction(_AND, 2, imm=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, imm=16),
        _instruction(_LOAD_WORD, 4, 1, 4),  # r4 = major
        _instruction(_LOAD_WORD, 5, 1, 8),  # r5 = minor
    ]
    for rule in reversed(rules):
        program += _rule(rule)
        if rule.kind == "a" and rule.major is None and rule.minor is None and set(rule.access) == set("rwm"):
            return b"".join(program)  # it matches all; the verifier refuses code that cannot be reached
    program += [_instruction(_MOVE_NUMBER_64, 0, imm=0), _instruction(_EXIT)]
    return b"".join(program)


def _rule(rule: DeviceRule) -> list[bytes]:
    """Return "if it matches, answer"; each test jumps behind the answer when it fails."""
    tests: list[tuple[int, int, int, int]] = []  # code, dst, src, imm
    before: dict[int, list[bytes]] = {}
    if rule.kind != "a":
        tests.append((_JUMP_UNEQUAL, 2, 0, _KINDS[rule.kind]))
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    if access != 7:
        # Denying matches if any wanted access is in the rule's, allowing only if all are.
        before[len(tests)] = [_instruction(_MOVE, 1, 3), _instruction(_AND, 1, imm=access)]
        if rule.allow:
            tests.append((_JUMP_UNEQUAL_REGISTERS, 1, 3, 0))
        else:
            tests.append((0x16, 1, 0, 0))  # JEQ32: nothing in common, go on
    if rule.major is not None:
        tests.append((_JUMP_UNEQUAL, 4, 0, rule.major))
    if rule.minor is not None:
        tests.append((_JUMP_UNEQUAL, 5, 0, rule.minor))
    answer = [_instruction(_MOVE_NUMBER_64, 0, imm=int(rule.allow)), _instruction(_EXIT)]
    code: list[bytes] = []
    total = len(tests) + sum(len(extra) for extra in before.values())
    for index, (operation, dst, src, imm) in enumerate(tests):
        code += before.get(index, [])
        code.append(_instruction(operation, dst, src, total - len(code) - 1 + len(answer), imm))
    return code + answer


def replace(directory: str, rules: Sequence[DeviceRule]) -> None:
    """Attach the program of these rules to the group at `directory`, and detach those that were there."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        old = _attached(fd)
        program = _load(assemble(rules))
        try:
            _call(_PROG_ATTACH, struct.pack("<IIII", fd, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(program)
        for identifier in old:
            _detach(fd, identifier)
    finally:
        os.close(fd)


def _call(command: int, attributes: bytes) -> int:
    """bpf(2); attributes are the leading members of `union bpf_attr`, the rest is zero."""
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    result = syscalls.bpf(_NR_BPF, command, ctypes.addressof(buffer), len(buffer))
    if command == _PROG_QUERY:
        return int(struct.unpack_from("<I", buffer, 24)[0])
    return result


def _load(program: bytes) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQ", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    return _call(_PROG_LOAD, attributes)


def _attached(fd: int) -> list[int]:
    identifiers = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("<IIIIQI", fd, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(identifiers), 64)
    return list(identifiers[: _call(_PROG_QUERY, attributes)])


def _detach(fd: int, identifier: int) -> None:
    program = _call(_PROG_GET_FD_BY_ID, struct.pack("<I", identifier))
    try:
        _call(_PROG_DETACH, struct.pack("<III", fd, program, _ATTACH_CGROUP_DEVICE))
    finally:
        os.close(program)
