"""Run the corpora and print each case that did not pass, then one line a corpus.

conformance/builder [language] [git] [lint] [buildkit] [buildah] [-v] [CASE...]

The last two build: they need root, busybox-static and tree-sitter-go, and take a quarter of an hour. With names of
cases only those are built.
"""

import sys
from collections.abc import Iterator

from builder_judges import language, lint
from builder_judges.corpora import locate
from builder_judges.report import Report

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
    """Return 1 when a case failed."""
    wanted = {a for a in arguments if not a.startswith("-")} or CORPORA
    done = []
    for report in reports(wanted):
        for name, why in report.failed:
            print(f"FAILED {report.corpus}: {name}\n    {why}")
        for name, why in report.skipped:
            print(f"skipped {report.corpus}: {name}: {why}")
        if "-v" in arguments:
            for name in report.passed:
                print(f"passed {report.corpus}: {name}")
        done.append(report)
    print()
    for report in done:
        print(report.line)
    return int(any(report.failed for report in done))


sys.exit(main(sys.argv[1:]))
