"""The document `runtime.md`: a line a suite, then a section a suite that names every failure with its reason.

A suite that was not run keeps the line and the section it had: no machine has the tools of all, and the long ones are
renewed one at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime_judges.suite import UNEXPLAINED, Suite
from runtime_judges.tap import Result


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a suite, at a commit of its source, said of our runtime and of the one beside it.

    That one may not have been asked (no results).
    """

    suite: Suite
    ours: Sequence[Result]
    theirs: Sequence[Result]
    beside: str
    commit: str = ""

    @property
    def line(self) -> str:
        compared = f" ({self.beside} here: {_totals(self.theirs)})" if self.theirs else ""
        return f"{self.suite.name}: {_totals(self.ours)}{compared}"

    @property
    def unexplained(self) -> list[str]:
        """Failures without a reason, and programs that ended without one that fits."""
        return [
            f"{result.name}: {check}"
            for result in self.ours
            for check in result.failed
            if self.suite.reason(result.name, check) == UNEXPLAINED
        ]

    def section(self) -> str:
        clean = f"{sum(r.clean for r in self.ours)} of {len(self.ours)} programs are clean"
        clean += f"; {self.beside}: {sum(r.clean for r in self.theirs)}" if self.theirs else ""
        about = f"{self.suite.about} At commit `{self.commit}`." if self.commit else self.suite.about
        lines = [about, "", f"{clean}."]
        failed_there = {result.name: len(result.failed) for result in self.theirs}
        for result in self.ours:
            if result.failed:
                there = f", {self.beside} {failed_there[result.name]}" if result.name in failed_there else ""
                lines += ["", f"**{result.name}** ({len(result.failed)} failed{there})", ""]
                lines += [f"- {names}: {why}" for why, names in self._reasons(result.name, result.failed)]
        skipped: dict[str, list[str]] = {}  # what was skipped: the programs that skipped just that
        for result in self.ours:
            if result.skipped:
                skipped.setdefault("; ".join(dict.fromkeys(result.skipped)), []).append(result.name)
        if skipped:
            lines += ["", "Skipped:", ""]
            lines += [f"- {', '.join(programs)}: {checks}" for checks, programs in skipped.items()]
        return "\n".join(lines)

    def _reasons(self, program: str, failed: Sequence[str]) -> list[tuple[str, str]]:
        grouped: dict[str, dict[str, int]] = {}
        for check in failed:
            counts = grouped.setdefault(self.suite.reason(program, check), {})
            counts[check] = counts.get(check, 0) + 1
        return [
            (why, "; ".join(f"{check}{f' (x{count})' if count > 1 else ''}" for check, count in checks.items()))
            for why, checks in grouped.items()
        ]


def _totals(results: Sequence[Result]) -> str:
    passed, failed, skipped = (sum(len(getattr(r, kind)) for r in results) for kind in ("passed", "failed", "skipped"))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def renewed(document: str, order: Sequence[str], verdicts: Mapping[str, Verdict], absent: Mapping[str, str]) -> str:
    """Return the document with the verdicts in it; `absent` says why suites were not run."""
    head, *sections = document.split("\n## ")
    lines = dict(line.split(":", 1) for line in head.splitlines() if ": " in line)
    texts = dict(section.split("\n", 1) for section in sections)
    for name in order:
        if name in verdicts:
            lines[name], texts[name] = verdicts[name].line.removeprefix(f"{name}:"), f"\n{verdicts[name].section()}\n"
        elif name not in lines or lines[name].startswith(" not run"):
            lines[name] = f" not run: {absent.get(name, 'it was not asked for')}"
    found = [f"{name}:{lines[name]}" for name in order]
    found += [f"\n## {name}\n{texts[name].rstrip()}" for name in order if name in texts]
    return "\n".join(found) + "\n"
