"""BuildKit's lint expectations: every call of checkLinterWarnings with the Dockerfile that stood there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder_judges import golang
from builder_judges.report import Report
from kestrel.build.check import examine

_FIELDS = ("RuleName", "Detail", "Line", "Description", "URL")


def cases(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (test function, parameters) of each call, in order."""
    for name, body in golang.functions(text).items():
        if not name.startswith("test"):
            continue
        names: dict[str, Any] = {"source": body}
        names["call makeLintWarning"] = lambda word, line: {
            "RuleName": "MultipleInstructionsDisallowed",
            "Description": "Multiple instructions of the same type should not be used in the same stage",
            "URL": "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
            "Detail": f"Multiple {word} instructions should not be used in the same stage because only the last one "
            "will be used",
            "Line": line,
        }
        found = golang.tokens(body)
        at = 0
        while at < len(found):
            text_here = found[at].text
            if found[at].kind == "name" and at + 1 < len(found) and found[at + 1].text in (":=", "="):
                reader = golang.Reader(found, at + 2, names)
                names[text_here] = golang.tried(reader)
            elif text_here == "checkLinterWarnings" and found[at + 1].text == "(":
                yield name, golang.Reader(found, at + 1, names).arguments()[2]
            at += 1


def test_file(root: Path) -> Path:
    """Return the file of the expectations, which has had two names."""
    base = root / "frontend/dockerfile"
    return next(p for p in (base / "dockerfile_check_test.go", base / "dockerfile_lint_test.go") if p.exists())


def lint(root: Path) -> Iterator[Report]:
    report = Report("buildkit lint")
    counts: dict[str, int] = {}
    for name, case in cases(test_file(root).read_text()):
        counts[name] = counts.get(name, 0) + 1
        title = f"{name} {counts[name]}"
        if name == "testBaseImagePlatformMismatch":
            report.skip(
                title,
                "needs a registry with an image of another platform; tests/unit/dockerfile/test_lint.py has the rule",
            )
            continue
        given = {k.removeprefix("build-arg:"): v for k, v in (case.get("FrontendAttrs") or {}).items()}
        checked = examine(case["Dockerfile"], ignore=case.get("DockerIgnore") or "", args=given)
        _compare(
            report, f"{title} whole", case.get("UnmarshalWarnings") or case.get("Warnings") or [], checked.language
        )
        built = examine(case["Dockerfile"], ignore=case.get("DockerIgnore") or "", args=given, target_only=True)
        _compare(report, f"{title} target", case.get("Warnings") or [], built.language)
        if "BuildErr" in case or "UnmarshalBuildErrRegexp" in case:
            report.verdict(f"{title} error", bool(checked.error), "no error was seen")
    yield report


def _compare(report: Report, title: str, expected: list[dict[str, Any]], found: Any) -> None:
    wanted = sorted((w["RuleName"], w["Detail"], w["Description"], w.get("URL", "")) for w in expected)
    seen = sorted((f.rule.name, f.detail, f.rule.description, f.rule.url) for f in found)
    report.check(title, wanted, seen)
