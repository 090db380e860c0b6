"""Judge the registries that are here and print each test that did not pass by name, then one line a registry.

conformance/registry [--write] [-v] [kestrel] ["kestrel with accounts"] [docker-registry] [zot]
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from registry_judges.program import VARIABLE, Verdict, judge, locate
from registry_judges.servers import SERVERS, present

DOCUMENT = Path(__file__).parent.parent / "registry.md"
SUITE = "distribution-spec"


def main(arguments: "list[str]") -> int:
    """Return 1 when a test of ours failed."""
    program = locate()
    if program is None:
        print(f"{SUITE}: not run: ${VARIABLE} names no program; it is opencontainers/distribution-spec's conformance/")
        return 0
    wanted = [a for a in arguments if not a.startswith("-")] or list(SERVERS)
    verdicts = []
    for name in wanted:
        if not present(name):
            print(f"{SUITE}, {name}: not run: it is not on this machine")
            continue
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, SERVERS[name](Path(directory)) as served:
            verdicts.append(judge(program, name, *served))
    for verdict in verdicts:
        _print(verdict, verbose="-v" in arguments)
    print()
    print(_lines(verdicts))
    if "--write" in arguments:
        _renew(verdicts)
    return int(any(verdict.failed for verdict in verdicts if verdict.registry.startswith("kestrel")))


def _print(verdict: Verdict, *, verbose: bool) -> None:
    for name, why in verdict.failed:
        print(f"FAILED {verdict.registry}: {name}\n    {why}")
    for kind, names in (("skipped", verdict.skipped), ("passed", verdict.passed if verbose else [])):
        for name, count in Counter(names).items():
            print(f"{kind} {verdict.registry}: {name}{f' (x{count})' if count > 1 else ''}")


def _lines(verdicts: "list[Verdict]") -> str:
    return "\n".join(f"{SUITE}{'' if v.registry == 'kestrel' else f', {v.registry}'}: {v.counts}" for v in verdicts)


def _renew(verdicts: "list[Verdict]") -> None:
    """Put the new lines at the head of the document, and keep what people wrote below."""
    _, mark, rest = DOCUMENT.read_text().partition("\n# ")
    head = "\n".join(f"    {line}" for line in _lines(verdicts).splitlines())
    DOCUMENT.write_text(f"{head}\n{mark}{rest}")


sys.exit(main(sys.argv[1:]))
