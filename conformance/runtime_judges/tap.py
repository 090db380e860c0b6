"""What a program says in the Test Anything Protocol, counted line by line.

Strict readers of the protocol give up at the YAML blocks some of these programs print; the lines themselves are plain.
"""

import re
from dataclasses import dataclass, field

_LINE = re.compile(r"^(not ok|ok)(?: +(\d+))?(?: +-)? *(.*?)(?: # [\d.]+s)?$")
_DIRECTIVE = re.compile(r"^(.*?) *# *(?:skip|todo)\b:? *(.*)$", re.IGNORECASE)


@dataclass
class Result:
    """The outcome of one program: descriptions of what it checked. Those it skipped come with its reasons.

    `output` is all it said.
    """

    name: str
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def clean(self) -> bool:
        return not self.failed

    @property
    def counts(self) -> str:
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def read(name: str, output: str, code: int, complaint: str = "") -> Result:
    """Count a program's lines; one that ends badly without naming a failure counts as a failure of its own."""
    result = Result(name, output=output)
    for line in output.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        verdict, number, text = found.groups()
        text = text or f"check {number}"
        left_out = _DIRECTIVE.match(text)
        if left_out:
            what, why = left_out.groups()
            result.skipped.append(f"{what} ({why})" if why else what)
        elif verdict == "ok":
            result.passed.append(text)
        else:
            result.failed.append(text)
    if code and not result.failed:
        result.failed.append(f"ended with exit code {code}: {complaint}")
    return result
