"""The conformance program of opencontainers/distribution-spec: how it is told what to judge, and what it said.

It is configured by `OCI_...` variables, and writes `junit.xml` with one test case for every leaf of its tree.
"""

import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

VARIABLE = "KESTREL_DISTRIBUTION_CONFORMANCE"
EVERYTHING = {
    "OCI_VERSION": "dev",
    "OCI_TLS": "disabled",
    "OCI_LOG": "error",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_BLOBS_MOUNT_ANONYMOUS": "true",
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_TAG_PARAM": "true",
    "OCI_DATA_SPARSE": "true",
}
"""All that `dev` does not switch on by itself, too."""
SECONDS = 600


@dataclass(frozen=True)
class Verdict:
    """What the program said of one registry; names may come more than once."""

    registry: str
    passed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def counts(self) -> str:
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def locate() -> "Path | None":
    """Return the program, or None when the variable names none."""
    named = os.environ.get(VARIABLE, "")
    return Path(named).resolve() if named and os.access(named, os.X_OK) else None


def judge(program: Path, registry: str, address: str, login: tuple[str, str]) -> Verdict:
    """Run every test against the registry at `address` (host:port, plain HTTP)."""
    username, password = login
    with tempfile.TemporaryDirectory() as results:
        environment = {
            **os.environ,
            **EVERYTHING,
            "OCI_REGISTRY": address,
            "OCI_USERNAME": username,
            "OCI_PASSWORD": password,
            "OCI_RESULTS_DIR": results,
        }
        done = subprocess.run([program], cwd=results, env=environment, capture_output=True, timeout=SECONDS)
        report = Path(results, "junit.xml")
        if not report.exists():
            raise RuntimeError(f"{program} wrote no report: {done.stderr.decode(errors='replace')[-2000:]}")
        return read(registry, report.read_bytes())


def read(registry: str, report: bytes) -> Verdict:
    """Return the verdict that a `junit.xml` holds."""
    verdict = Verdict(registry)
    for case in ET.fromstring(report).iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        if status == "passed":
            verdict.passed.append(name)
        elif status == "skipped":
            verdict.skipped.append(name)
        else:
            said = case.findtext("system-out") or status
            verdict.failed.append((name, " ".join(said.split())[:300]))
    return verdict
