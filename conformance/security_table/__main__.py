"""Run the security checklist against each runtime that is here, and write who passed."""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent
RUNTIMES = ("kestrel-runtime", "runc", "crun")
ABOUT = """\
Known escapes, carried out by `tests/security` on one machine; `conformance/security --write` renews this. A cell says
how many of a row's tests passed. Rows that are not an OCI runtime's business (archives, builds, the registry, an
engine's files) are run against a whole Kestrel, and stand in its column alone. Attackers are programs in the
container; each runtime gets the same bundle, with what Kestrel's engine gives containers by default."""
WORDS = ("passed", "failed", "skipped")


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance/security", description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew security.md")
    parser.add_argument("--thorough", action="store_true", help="long races, a thousand starts, gigabytes of zeros")
    parser.add_argument("runtimes", nargs="*", default=RUNTIMES, help="names or paths")
    wanted = parser.parse_args()
    found = [
        run(name, thorough=wanted.thorough) for name in wanted.runtimes if name == RUNTIMES[0] or shutil.which(name)
    ]
    document = report([results for results in found if results is not None])
    print(document)
    if wanted.write:
        (HERE / "security.md").write_text(document)
    return int(any(counts(results["rows"])["failed"] for results in found[:1] if results))


def run(runtime: str, *, thorough: bool) -> "dict[str, Any] | None":
    """Run the tests; return what they wrote down."""
    with tempfile.TemporaryDirectory() as place:
        results = Path(place) / "results.json"
        words = [sys.executable, "-m", "pytest", "-q", "--tb=line", str(HERE.parent / "tests/security")]
        words += ["--runtime", runtime, "--results", str(results), *(["--thorough"] if thorough else [])]
        subprocess.run(words, check=False, cwd=HERE.parent, stdout=sys.stderr)
        if not results.exists():
            return None
        found: dict[str, Any] = json.loads(results.read_text())
    return {**found, "version": version(runtime)}


def version(runtime: str) -> str:
    program = str(HERE.parent / ".venv/bin/kestrel-runtime") if runtime == RUNTIMES[0] else runtime
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else runtime


def counts(rows: Sequence[Any]) -> dict[str, int]:
    outcomes = [outcome for row in rows for outcome in row[3]]
    return {word: outcomes.count(word) for word in WORDS}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Return the document: a line for each runtime, then the table."""
    lines = [
        f"{each['runtime']}: " + ", ".join(f"{n} {word}" for word, n in counts(each["rows"]).items()) for each in found
    ]
    names = [each["runtime"] for each in found]
    versions = "; ".join(each["version"] for each in found)
    lines += [
        "",
        ABOUT,
        "",
        f"Compared: {versions}.",
        "",
        f"| row | threat | against | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for each in found:
        for number, threat, against, outcomes in each["rows"]:
            rows.setdefault((number or 99, threat), {})[each["runtime"]] = (against, outcomes)
    for (number, threat), cells in sorted(rows.items()):
        against = "kestrel" if any(whom == "kestrel" for whom, _ in cells.values()) else "runtime"
        shown = " | ".join(cell(cells[name][1]) if name in cells else "" for name in names)
        lines.append(f"| {number if number < 99 else ''} | {threat} | {against} | {shown} |")
    return "\n".join(lines) + "\n"


def cell(outcomes: Sequence[str]) -> str:
    passed, failed, skipped = (outcomes.count(word) for word in WORDS)
    said = f"{passed}" if not failed else f"**{passed}, {failed} failed**"
    return said + (f", {skipped} skipped" if skipped else "")


if __name__ == "__main__":
    sys.exit(main())
