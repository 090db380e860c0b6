"""Run the corpora and print each case that did not pass, then one line a corpus.

conformance/builder [language] [git] [lint] [buildkit] [buildah] [-v] [--write] [CASE...]

The last two build: they need root, busybox-static and tree-sitter-go, and take a quarter of an hour. With names of
cases only those are built. --write renews what builder.md says of the corpora that were run whole.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from builder_judges import language, lint
from builder_judges.corpora import locate
from builder_judges.document import renewed
from builder_judges.report import Report

DOCUMENT = Path(__file__).parent.parent / "builder.md"
CORPORA = {"language", "lint", "git", "buildkit", "buildah"}


def reports(wanted: set[str]) -> Iterator[Report]:
    """Yield the reports of the corpora that are asked for."""
    if "language" in wanted:
        yield from language.parser(locate("buildkit"))
        yield from language.shell(locate("buildkit"))
        yield from language.ignore(locate("patternmatcher"))
    if "git" in wanted:
        yield from language.git(locate("buildkit"))
    if "lint" in wanted:
        yield from lint.lint(locate("buildkit"))
    cases = wanted - CORPORA or None
    if "buildkit" in wanted:
        from builder_judges import buildkit_builds

        yield buildkit_builds.builds(locate("buildkit"), cases)
    if "buildah" in wanted:
        from builder_judges import buildah_builds

        yield buildah_builds.builds(locate("buildah"), cases)


def main(arguments: list[str]) -> int:
    """Return 1 when a case failed and nobody has said why."""
    wanted = {a for a in arguments if not a.startswith("-")} or CORPORA
    done = []
    for report in reports(wanted):
        for name, seen in report.failed:
            print(f"FAILED {report.corpus}: {name}: {report.why(name)}\n    {seen}")
        for case in report.skipped:
            print(f"skipped {report.corpus}: {case.name}: {case.reason}" + (f"\n    {case.seen}" if case.seen else ""))
        if "-v" in arguments:
            for name in report.passed:
                print(f"passed {report.corpus}: {name}")
        sys.stdout.flush()
        done.append(report)
    print()
    for report in done:
        print(report.line)
    if "--write" in arguments and wanted <= CORPORA:
        DOCUMENT.write_text(renewed(DOCUMENT.read_text(), done))
    return int(any(report.unexplained for report in done))


sys.exit(main(sys.argv[1:]))
