"""Known escapes, carried out against an OCI runtime: `pytest tests/security --runtime runc|crun|PATH`, ours by default.

A test that carries `threat(row, "what it is called")` is an attack of the checklist, one without is of our own making.
Those `against="kestrel"` are not an OCI runtime's business but an engine's, a builder's or a registry's: they are run
against a whole Kestrel, and left out when another runtime is asked for. The run ends with a table of who passed.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import FailedPrecondition
from kestrel.testing.images import BUSYBOX, oci_archive, tiny_image
from kestrel.testing.instance import Instance
from kestrel.testing.runtimes import OURS, PYTHON, Bundle, Runtime, busybox_root

RESULTS = pytest.StashKey[dict[tuple[int, str, str], list[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runtime", default=OURS, help=f"the OCI runtime to attack: {OURS}, runc, crun or a path")
    parser.addoption("--thorough", action="store_true", help="races of ten seconds, and a thousand starts")
    parser.addoption("--results", type=Path, help="also write the table's lines to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes a minute, and what is not an OCI runtime's business when another than ours is asked for."""
    ours, thorough = config.getoption("runtime", OURS) == OURS, config.getoption("thorough", False)
    left = [item for item in items if (not ours and _threat(item)[2] == "kestrel") or (_long(item) and not thorough)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def _long(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("threat")
    return marker is not None and bool(marker.kwargs.get("long"))


def _threat(item: pytest.Item) -> tuple[int, str, str]:
    marker = item.get_closest_marker("threat")
    if marker is None:
        return 0, "beyond the checklist", "runtime"
    return marker.args[0], marker.args[1], marker.kwargs.get("against", "runtime")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Any:
    """Note a test's outcome: of its call, or of what kept it from being called."""
    report = yield
    if Path(__file__).parent in item.path.parents and (report.when == "call" or report.outcome != "passed"):
        item.config.stash[RESULTS].setdefault(_threat(item), []).append(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash[RESULTS]
    if not found:
        return
    name = Path(config.getoption("runtime", OURS)).name
    outcomes = [outcome for results in found.values() for outcome in results]
    counts = (f"{outcomes.count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    terminalreporter.section("security checklist")
    terminalreporter.write_line(f"{name}: {', '.join(counts)}")
    for (row, threat, against), results in sorted(found.items()):
        terminalreporter.write_line(f"{row or '-':>3}  {verdict(results):8} {threat} ({_whom(against, name)})")
    if config.getoption("results", None):
        rows = [[row, threat, _whom(against, name), results] for (row, threat, against), results in found.items()]
        config.getoption("results").write_text(json.dumps({"runtime": name, "rows": sorted(rows)}))


def _whom(against: str, runtime: str) -> str:
    return runtime if against == "runtime" else against


def verdict(results: list[str]) -> str:
    """Return one word for a row of several tests."""
    return next((word for word in ("failed", "passed") if word in results), "skipped")


@pytest.fixture(scope="session")
def layer() -> Iterator[Path]:
    """A root filesystem of busybox, to be copied."""
    top = Path(tempfile.mkdtemp(prefix="ktest-layer-"))
    top.chmod(0o755)
    try:
        busybox_root(top)
        if not os.path.exists(PYTHON):
            raise FailedPrecondition(f"there is no {PYTHON}, which the attackers are written in")
        yield top
    except FailedPrecondition as missing:
        pytest.skip(missing.message)
    finally:
        shutil.rmtree(top)


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, layer: Path) -> Iterator[Runtime]:
    """The runtime under attack, for the session."""
    with Runtime.find(request.config.getoption("runtime", OURS)) as runtime:
        with Bundle.make(layer) as bundle:  # one that refuses everything would withstand most attacks
            assert runtime.run(bundle.shell("echo works")).out == "works\n"
        yield runtime


@pytest.fixture
def runtime(subject: Runtime) -> Iterator[Runtime]:
    """The runtime under attack; what a test makes with it is deleted after the test."""
    yield subject
    subject.clean()


@pytest.fixture
def bundle(layer: Path, subject: Runtime) -> Iterator[Bundle]:
    """A bundle with what Kestrel's engine gives a container by default."""
    with Bundle.make(layer) as made:
        yield made
        subject.clean()  # before what it runs on is removed


@pytest.fixture
def second(layer: Path, subject: Runtime) -> Iterator[Bundle]:
    """Another bundle: an accomplice's."""
    with Bundle.make(layer) as made:
        yield made
        subject.clean()


@pytest.fixture(scope="session")
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a race is run."""
    return 10.0 if request.config.getoption("thorough", False) else 1.5


@pytest.fixture(scope="session")
def shared() -> Iterator[Instance]:
    """A whole Kestrel, for what is not an OCI runtime's business."""
    if os.geteuid() or not BUSYBOX.exists():
        pytest.skip("needs root and a static /bin/busybox")
    with Instance.make() as kestrel:
        kestrel.base.chmod(0o755)  # so that what keeps others out is its own
        kestrel("up")
        kestrel("load", stdin=oci_archive(tiny_image(), "box:latest"))
        yield kestrel


@pytest.fixture
def kestrel(shared: Instance) -> Iterator[Instance]:
    """The session's Kestrel, with an image `box` of busybox; a test's containers are removed after it."""
    yield shared
    left = [container["id"] for container in shared("ps", "-a", "--json").json()]
    if left:
        shared("rm", "-f", *left)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory of the host that no container is given, with a secret in it."""
    top = Path(tempfile.mkdtemp(prefix="ktest-outside-"))
    top.chmod(0o755)
    (top / "secret").write_text("the host's secret\n")
    yield top
    shutil.rmtree(top)
