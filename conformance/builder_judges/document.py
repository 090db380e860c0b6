"""`builder.md`: a line a corpus at its top, and a section that names every case that did not pass with its reason.

A corpus that was not run keeps the line and the section it had: the two that build take a quarter of an hour.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from builder_judges.report import Report, Skip

TITLE = "Every case that did not pass"
BUILDS = ("buildkit integration", "buildah conformance")
"""The corpora whose cases are builds."""
_SHARE = re.compile(r"^(\d+) of (\d+) pass \(.*?\)(?:; of (\d+) with what comes later)?", re.MULTILINE)


def renewed(document: str, reports: Sequence[Report]) -> str:
    """Return the document with what the reports say."""
    head, *sections = document.split("\n## ")
    top, prose = head.split("\n\n", 1)
    lines = dict(line.strip().rsplit(": ", 1) for line in top.splitlines())
    lines |= dict(report.line.rsplit(": ", 1) for report in reports)
    earlier = next((s for s in sections if s.startswith(TITLE)), "")
    cases = dict(text.split("\n", 1) for text in earlier.split("\n### ")[1:])
    cases |= {report.corpus: f"\n{_section(report)}\n" for report in reports}
    shown = {corpus: text for corpus, text in cases.items() if text.strip()}
    own = "".join(f"\n### {corpus}\n{shown[corpus].rstrip()}\n" for corpus in lines if corpus in shown)
    others = [section.rstrip("\n") for section in sections if not section.startswith(TITLE)]
    top = "".join(f"    {corpus}: {counts}\n" for corpus, counts in lines.items())
    return "\n".join([top, "\n\n## ".join([prose.rstrip("\n"), *others, f"{TITLE}\n\n{_share(cases)}\n{own}"])])


def _share(cases: dict[str, str]) -> str:
    """Say how many of all builds pass."""
    found = [match for corpus in BUILDS if (match := _SHARE.search(cases.get(corpus, "")))]
    passed, asked, more = (sum(int(match[group] or match[2]) for match in found) for group in (1, 2, 3))
    return "\n".join(
        _wrapped(
            f"Of the builds of {' and '.join(BUILDS)} that the builder is asked for, and that need no other image than "
            f"scratch, busybox or a Debian base, {_percent(passed, asked)}. Counted is what passed, what failed, and "
            f"what was skipped because Kestrel does not have it. With what comes later as well (caches that are "
            f"exported, provenance, bills of materials, other platforms) {_percent(passed, more)}.",
            "",
        )
    )


def _percent(passed: int, asked: int) -> str:
    return f"{passed} of {asked} pass ({100 * passed / max(asked, 1):.1f} %)"


def _section(report: Report) -> str:
    found: list[str] = []
    if report.corpus in BUILDS:
        asked = len(report.passed) + len(report.failed) + sum(s.kind is Skip.LACKING for s in report.skipped)
        more = asked + sum(s.kind is Skip.LATER for s in report.skipped)
        later = f"; of {more} with what comes later" if more > asked else ""
        found += [f"{_percent(len(report.passed), asked)}{later}."]
    found += _group("Failed", [(report.why(name), name) for name, _ in report.failed])
    for kind in Skip:
        found += _group(kind.value, [(s.reason, s.name) for s in report.skipped if s.kind is kind])
    return "\n".join(found).strip("\n")


def _group(title: str, cases: Iterable[tuple[str, str]]) -> Iterator[str]:
    grouped: dict[str, list[str]] = {}
    for reason, name in cases:
        grouped.setdefault(reason, []).append(name)
    if grouped:
        yield from ("", f"{title}:", "")
    for reason, names in grouped.items():
        count = f" ({len(names)})" if len(names) > 1 else ""
        yield from _wrapped(f"- {reason}{count}: {', '.join(names)}", "  ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
