"""Run the suites whose tools are here, against our runtime and one beside it, and write what came out."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime_judges import runtime_tools
from runtime_judges.reasons import reason
from runtime_judges.tap import Result

HERE = Path(__file__).parent.parent
ABSENT = {
    "crun tests": "they are part of crun's source tree, which no package of this system has",
    "contest (youki)": "it is part of youki's source tree, which no package of this system has",
    "runc bats": "they are part of runc's source tree, which no package of this system has",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance/runtime", description=__doc__)
    parser.add_argument("--runtime", default=str(HERE.parent / ".venv/bin/kestrel-runtime"))
    parser.add_argument("--beside", default="runc", help="a runtime to compare with, empty for none")
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/kestrel-conformance"), help="where suites are built"
    )
    parser.add_argument("--write", action="store_true", help="renew runtime.md")
    parser.add_argument("programs", nargs="*", help="only these")
    wanted = parser.parse_args()
    try:
        source = runtime_tools.build(wanted.work)
    except FileNotFoundError as missing:
        print(f"{runtime_tools.NAME}: not run: {missing}")
        return 0
    ours = _run(source, wanted.runtime, wanted.programs)
    theirs = _run(source, wanted.beside, wanted.programs) if shutil.which(wanted.beside) else []
    document = report(ours, theirs, wanted.beside)
    print(document)
    if wanted.write and not wanted.programs:
        (HERE / "runtime.md").write_text(document)
    theirs_failed = {result.name for result in theirs if not result.clean}
    return int(any(not result.clean and result.name not in theirs_failed for result in ours if theirs))


def _run(source: Path, runtime: str, only: list[str]) -> list[Result]:
    found = []
    for result in runtime_tools.run(source, runtime, only):
        counts = f"{len(result.passed)} passed, {len(result.failed)} failed, {len(result.skipped)} skipped"
        print(f"{Path(runtime).name}: {result.name}: {counts}", file=sys.stderr)
        found.append(result)
    return found


def totals(results: Sequence[Result]) -> str:
    passed, failed, skipped = (sum(len(getattr(r, kind)) for r in results) for kind in ("passed", "failed", "skipped"))
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def report(ours: Sequence[Result], theirs: Sequence[Result], beside: str) -> str:
    """Return the document: totals first, then every failure with its reason."""
    other = {result.name: result for result in theirs}
    compared = f" ({beside} here: {totals(theirs)})" if theirs else ""
    clean = sum(result.clean for result in ours)
    lines = [f"{runtime_tools.NAME}: {totals(ours)}{compared}", ""]
    lines += [f"{clean} of {len(ours)} programs are clean"]
    if theirs:
        lines[-1] += f"; {beside}: {sum(result.clean for result in theirs)}"
    lines[-1] += (
        f". Module `{runtime_tools.MODULE}` at `{runtime_tools.VERSION}`; `conformance/runtime --write` renews this."
    )
    lines += ["", "A program that ends early without naming a failure counts as one failure.", ""]
    for result in ours:
        if result.clean:
            continue
        theirs_failed = len(other[result.name].failed) if result.name in other else 0
        lines.append(
            f"- **{result.name}** ({len(result.failed)} failed{f', {beside} {theirs_failed}' if theirs else ''})"
        )
        grouped: dict[str, dict[str, int]] = {}
        for check in result.failed:
            counts = grouped.setdefault(reason(result.name, check), {})
            counts[check] = counts.get(check, 0) + 1
        for why, checks in grouped.items():
            named = "; ".join(f"{check}{f' (x{count})' if count > 1 else ''}" for check, count in checks.items())
            lines.append(f"  - {named}: {why}")
    lines += ["", "Not run here:", ""]
    lines += [f"- {suite}: {why}" for suite, why in ABSENT.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
