"""buildah's conformance cases: its table says which Dockerfile and context, and three builders build it.

The table is written for "buildah makes what docker makes". So a case passes when Kestrel makes what buildah makes, or,
where that differs from docker's own builder or cannot build it, what BuildKit makes: configuration and every file.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from builder_judges.go.library import PACKAGES
from builder_judges.go.library.files import syscall
from builder_judges.go.library.testify import Testing
from builder_judges.go.suite import Suite
from builder_judges.go.values import Package
from builder_judges.kestrel_builds import Kestrel, Order, unpack
from builder_judges.peers import Made, peers
from builder_judges.pictures import Picture, picture
from builder_judges.report import Report, Skip
from kestrel.testing import images

NAMES = tuple(
    f"{host}{name}:{tag}"
    for host, name, tag in (
        ("mirror.gcr.io/", "alpine", "latest"),
        ("mirror.gcr.io/", "busybox", "latest"),
        ("mirror.gcr.io/", "golang", "latest"),
        ("quay.io/libpod/", "ubuntu", "latest"),
        ("quay.io/libpod/", "centos", "7"),
        ("quay.io/fedora/", "python-311", "latest"),
        ("quay.io/libpod/", "busybox", "latest"),
        ("docker.io/library/", "busybox", "latest"),
        ("docker.io/library/", "alpine", "latest"),
    )
)
NOT_OURS = {"dev", "proc", "sys", "run", "etc/hosts", "etc/resolv.conf", "etc/hostname"}
"""What builders mount for a RUN, and leave or do not leave."""

REASONS = {
    "ci-pipeline-modified": "its file holds the environment of the builder: no two make the same",
    "add": "adds a page of a host that cannot be reached",
    "stage-container-as-source-plus-hardlinks": "builds on one build of busybox, by digest",
    "header-builtin": "copies the C library of other platforms' images",
    "quoted and inherited arg": "uses bash's printf %q; the stand-in has busybox's shell",
}

COMPILED = {"mount-targets": "true"}
"""The program of a context that is to be compiled beforehand. busybox does what it is called, so it stands in."""


def packages() -> dict[str, Package]:
    """What the callbacks of the table use beyond Go's library."""

    def set_xattrs(path: str, values: dict[str, str]) -> None:
        for name, value in values.items():
            os.setxattr(path, name, value.encode(), follow_symlinks=False)

    return {**PACKAGES, "copier": Package("copier", {"Lsetxattrs": set_xattrs}), "unix": syscall}


def builds(root: Path, only: "set[str] | None" = None) -> Report:
    """Judge every case of the table."""
    report = Report("buildah conformance")
    suite = Suite(packages(), {"selinuxMountFlag": lambda: ""})
    suite.load(root / "tests/conformance/conformance_test.go")
    suite.package.names.update(contextCanDoXattrs=True, storageCanDoXattrs=True)
    cases = suite.package.names["internalTestCases"]
    data = root / "tests/conformance/testdata"
    with Kestrel.make(NAMES) as kestrel, peers(kestrel.base, NAMES) as others:
        for number, case in enumerate(cases):
            name = f"{number:03} {case.fields['name']}"
            if only and not any(word in name for word in only):
                continue
            reason = REASONS.get(case.fields["name"])
            if case.fields.get("transientMounts"):
                reason = "needs buildah's own --volume"
            if reason and not only:
                report.skip(name, reason)
            else:
                _case(report, Judge(suite, kestrel, others, data), name, case.fields)
    return report


class Judge:
    """What a case is judged with."""

    def __init__(self, suite: Suite, kestrel: Kestrel, others: list[Any], data: Path) -> None:
        self.suite, self.kestrel, self.others, self.data = suite, kestrel, others, data

    def context(self, case: dict[str, Any], scratch: Path) -> Order:
        """Lay out the context as the suite does, and change it as the case wants."""
        context = scratch / "context"
        dockerfile = case.get("dockerfile") or "Dockerfile"
        if case.get("contextDir"):
            shutil.copytree(self.data / case["contextDir"], context, symlinks=True)
            if case["contextDir"] in COMPILED:
                shutil.copy(images.BUSYBOX, context / COMPILED[case["contextDir"]])
        else:
            context.mkdir()
            if case.get("dockerfile"):
                shutil.copy(self.data / dockerfile, context / dockerfile)
        text = case.get("dockerfileContents")
        if text:
            (context / dockerfile).write_text(text)
        if case.get("tweakContextDir"):
            t = Testing(self.suite.apply)
            error = self.suite.apply(case["tweakContextDir"], t, str(context), "vfs", str(scratch / "storage"))
            if error is not None:
                raise ValueError(error.text)
        args = tuple(f"{name}={value}" for name, value in (case.get("buildArgs") or {}).items())
        return Order(context=str(context), dockerfile=str(context / dockerfile), args=args)

    def ours(self, order: Order, scratch: Path) -> Made:
        """Build it with Kestrel."""
        archive = scratch / "kestrel.tar"
        answer = self.kestrel.build(Order(**{**order.__dict__, "outputs": (f"type=oci,dest={archive}",)}))
        if answer.code:
            return Made(None, answer.err.strip())
        unpack(archive, scratch / "kestrel")
        return Made(scratch / "kestrel")


def _case(report: Report, judge: Judge, name: str, case: dict[str, Any]) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="ktest-", dir="/var/tmp"))
    try:
        order = judge.context(case, scratch)
        ours = judge.ours(order, scratch)
        if case.get("shouldFailAt"):
            _refused(report, judge, name, case, order, ours, scratch)
        else:
            _compared(report, judge, name, case, order, ours, scratch)
    except Exception as error:  # noqa: BLE001 - the case cannot be laid out here
        report.skip(name, "it cannot be laid out here", Skip.LACKING, f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refused(
    report: Report, judge: Judge, name: str, case: dict[str, Any], order: Order, ours: Made, scratch: Path
) -> None:
    """The build has to fail, and the error has to point at the line, unless docker's own builder builds it too."""
    line = case["shouldFailAt"]
    if ours.layout is not None:
        docker = next((p.build(order, scratch) for p in judge.others if p.name == "BuildKit"), Made(None))
        same = docker.layout is not None and not _differences(picture(ours.layout), picture(docker.layout), case)
        report.verdict(name, same, f"built, where line {line} has to be refused")
        return
    lines = {int(n) for n in re.findall(r"^ *(\d+) \| >>>", ours.said, re.MULTILINE)}
    report.verdict(name, line in lines, f"refused, but not at line {line}: {ours.said}")


def _compared(
    report: Report, judge: Judge, name: str, case: dict[str, Any], order: Order, ours: Made, scratch: Path
) -> None:
    theirs = {peer.name: peer.build(order, scratch) for peer in judge.others}
    built = {name: picture(made.layout) for name, made in theirs.items() if made.layout is not None}
    if not built:
        why = "; ".join(f"{name}: {_last(made.said)}" for name, made in theirs.items())
        report.skip(name, "no other builder here builds it", seen=why or "none is here")
        return
    if ours.layout is None and "BuildKit" in theirs and "BuildKit" not in built:
        report.passed.append(name)  # docker's own builder refuses it as well
        return
    if ours.layout is None:
        report.failed.append((name, f"{', '.join(built)} built it; {ours.said}"))
        return
    mine = picture(ours.layout)
    differences = {peer: _differences(mine, other, case) for peer, other in built.items()}
    if any(not lines for lines in differences.values()):
        report.passed.append(name)
    else:
        report.failed.append(
            (name, "\n    ".join(f"{peer}: {line}" for peer, lines in differences.items() for line in lines[:6]))
        )


def _differences(mine: Picture, other: Picture, case: dict[str, Any]) -> list[str]:
    allowed = [skip.replace("(dir):", "/").replace(":", "") for skip in case.get("fsSkip") or ()]
    left_out = NOT_OURS | {path.lstrip("/") for path in allowed if not path.endswith("mtime")}
    return mine.difference(other, left_out)


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
