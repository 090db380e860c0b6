"""Whole files: each case is a Dockerfile and what it decodes to, in `tests/data/dockerfile/<case>/`.

`KESTREL_UPDATE_GOLDEN=1` writes the expectations anew; read the difference before committing it.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.dockerfile import decode, parse
from kestrel.dockerfile.instructions import Instruction

CASES = Path(__file__).parents[2] / "data" / "dockerfile"


def describe(text: str) -> str:
    document = parse(text)
    program = decode(document)
    lines = [f"directive {name}={value}" for name, value in document.directives.items()]
    lines += [f"global {_instruction(arg)}" for arg in program.global_args]
    for stage in program.stages:
        lines.append(f"stage {stage.index} {_instruction(stage.from_)}")
        lines += [f"  {_instruction(instruction)}" for instruction in stage.instructions]
    return "\n".join(lines) + "\n"


def _instruction(instruction: Instruction) -> str:
    node = instruction.node
    span = f"{node.range.first}-{node.range.last}" if node.range.last > node.range.first else str(node.range.first)
    fields = " ".join(f"{name}={_value(value)}" for name, value in _fields(instruction) if value not in ((), "", None))
    return f"{span} {type(instruction).__name__} {fields}".rstrip()


def _fields(value: Any) -> list[tuple[str, Any]]:
    wanted = [field for field in dataclasses.fields(value) if field.name not in ("node", "range")]
    return [(field.name, getattr(value, field.name)) for field in wanted if getattr(value, field.name) != field.default]


def _value(value: Any) -> str:
    if isinstance(value, Instruction):
        return f"<{_instruction(value)}>"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ")"
    if dataclasses.is_dataclass(value):
        return "{" + " ".join(f"{name}={_value(each)}" for name, each in _fields(value)) + "}"
    return repr(value)


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_golden(case: str) -> None:
    described = describe((CASES / case / "Dockerfile").read_text())
    expected = CASES / case / "expected"
    if os.environ.get("KESTREL_UPDATE_GOLDEN"):
        expected.write_text(described)
    assert described == expected.read_text()
