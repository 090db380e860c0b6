"""Run the suites whose tools are here, against our runtime and one beside it, and say what came out by name."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime_judges import bats, contest, crun, runtime_tools
from runtime_judges.report import Verdict, renewed
from runtime_judges.suite import AbsentError, Suite, commit
from runtime_judges.tap import Result

HERE = Path(__file__).parent.parent
SUITES = (runtime_tools.SUITE, crun.SUITE, contest.SUITE, bats.SUITE)


def main() -> int:
    """Return 1 when a check failed and nobody has said why."""
    names = [suite.name for suite in SUITES]
    parser = argparse.ArgumentParser(prog="conformance/runtime", description=__doc__)
    parser.add_argument("--runtime", default=str(HERE.parent / ".venv/bin/kestrel-runtime"))
    parser.add_argument("--beside", default="runc", help="a runtime to compare with, empty for none")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/kestrel-conformance"), help="where suites are built"
    )
    parser.add_argument("--suite", action="append", choices=names, help="only this suite; may be given more than once")
    parser.add_argument("--write", action="store_true", help="renew runtime.md")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="name what passed, too, and show what programs said that failed"
    )
    parser.add_argument("programs", nargs="*", help="only these programs of the suites")
    wanted = parser.parse_args()
    verdicts, absent = {}, {}
    for suite in SUITES:
        if suite.name in (wanted.suite or names):
            try:
                source = suite.locate(wanted.work)
            except AbsentError as missing:
                absent[suite.name] = str(missing)
                print(f"{suite.name}: not run: {missing}")
                continue
            ours = _run(suite, source, wanted.runtime, wanted.programs, wanted.verbose)
            there = bool(shutil.which(wanted.beside))
            theirs = _run(suite, source, wanted.beside, wanted.programs, wanted.verbose) if there else []
            verdicts[suite.name] = Verdict(
                suite=suite, ours=ours, theirs=theirs, beside=wanted.beside, commit=commit(source)
            )
    print("", *(verdict.line for verdict in verdicts.values()), sep="\n")
    unexplained = [check for verdict in verdicts.values() for check in verdict.unexplained]
    print(*(f"not explained: {check}" for check in unexplained), sep="\n")
    if wanted.write and not wanted.programs:
        document = HERE / "runtime.md"
        document.write_text(renewed(document.read_text(), names, verdicts, absent))
    return int(bool(unexplained))


def _run(suite: Suite, source: Path, runtime: str, programs: Sequence[str], verbose: bool) -> list[Result]:
    found = []
    for result in suite.run(source, runtime, programs):
        print(f"{suite.name}: {Path(runtime).name}: {result.name}: {result.counts}")
        told = ("failed", "skipped", "passed") if verbose else ("failed", "skipped")
        if verbose and result.failed:
            print(result.output)
        for kind in told:
            for check in dict.fromkeys(getattr(result, kind)):
                print(f"    {kind}: {check}")
        sys.stdout.flush()
        found.append(result)
    return found


if __name__ == "__main__":
    sys.exit(main())
