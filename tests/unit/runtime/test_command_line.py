import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base import plainjson
from kestrel.base.errors import AlreadyExists, InvalidArgument, NotFound
from kestrel.linux.cgroups import Stats
from kestrel.oci import runtime_shape
from kestrel.runtime import (
    arguments,
    bundles,
    command,
    figures,
    groups,
    handed,
    hooks,
    joining,
    main,
    scheduling,
    verbs,
)
from kestrel.runtime.bundles import Record

KNOWN = {"bundle,b": "text", "force,f": "switch", "preserve-fds": "number", "env,e": "list"}


def test_options_are_read_as_go_reads_them() -> None:
    read = arguments.parse(["--bundle=/b", "-force", "--preserve-fds", "3", "-e", "A=b", "-e=C=d", "id", "--x"], KNOWN)
    assert (read.text("bundle"), read.on("force"), read.number("preserve-fds")) == ("/b", True, 3)
    assert read.all("env") == ["A=b", "C=d"]
    assert read.words == ["id", "--x"]
    assert not arguments.parse(["--force=false", "id"], KNOWN).on("force")
    assert arguments.parse(["-f", "--", "-b"], KNOWN).words == ["-b"]


def test_every_command_that_makes_a_process_is_sealed_first() -> None:
    assert {name for name, options in command.COMMANDS.items() if "pid-file" in options} == main.PARENTS


def test_options_may_stand_behind_the_id_where_no_program_follows() -> None:
    read = arguments.parse(["id", "--force", "KILL"], KNOWN, mixed=True)
    assert (read.words, read.on("force")) == (["id", "KILL"], True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--nope"], "flag provided but not defined: -nope"),
        (["--bundle"], "flag needs an argument: -bundle"),
        (["--preserve-fds=x"], "not a number"),
    ],
)
def test_a_bad_option_is_named(words: list[str], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        arguments.parse(words, KNOWN)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_our_json_is_the_standard_librarys(value: object) -> None:
    assert plainjson.dumps(value) == json.dumps(value, separators=(",", ":"))
    assert plainjson.loads(json.dumps(value, indent=1)) == value
    assert json.loads(plainjson.pretty(value)) == value


@given(st.text(alphabet='{}[]",:0123 \\ntruefalse'))
def test_our_json_refuses_what_the_standard_librarys_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - the words are its own
            plainjson.loads(text)
    else:
        assert plainjson.loads(text) == expected


@pytest.mark.parametrize("identifier", ["", ".", "..", "a/b", ".hidden", "a b", "ä", "x" * 1025, "a\n"])
def test_an_id_that_is_no_name_is_refused(identifier: str) -> None:
    with pytest.raises(InvalidArgument):
        bundles.check_id(identifier)


def test_a_record_is_kept_and_an_id_is_taken_once(tmp_path: Path) -> None:
    place = bundles.claim(str(tmp_path), "a")
    with pytest.raises(AlreadyExists, match="already exists: a"):
        bundles.claim(str(tmp_path), "a")
    record = Record(
        id="a", bundle="/b", pid=os.getpid(), started=bundles.start_time(os.getpid()), annotations={"k": "v"}
    )
    bundles.save(place, record)
    found = bundles.load(str(tmp_path), "a")
    assert found.members() == record.members()
    assert bundles.status(str(tmp_path), found) == "running"
    assert bundles.status(str(tmp_path), found.with_process(os.getpid(), 1)) == "stopped"
    assert found.describe("stopped") == {
        "ociVersion": "1.0.0", "id": "a", "status": "stopped", "bundle": "/b", "annotations": {"k": "v"},
    }  # fmt: skip
    bundles.forget(str(tmp_path), "a")
    with pytest.raises(NotFound, match="container does not exist"):
        bundles.load(str(tmp_path), "a")


def test_a_gate_opens_once_and_under_long_paths(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 120)
    place.mkdir()
    with bundles.make_gate(str(place)) as gate:
        first = bundles.open_gate(str(place))
        assert first is not None
        with first:
            accepted, _ = gate.accept()
            accepted.close()
    assert bundles.open_gate(str(place)) is None


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ({"path": "bin/x"}, "not absolute"),
        ({"path": "/x", "timeout": 0}, "greater than zero"),
        ({"path": "/x", "env": ["A"]}, "NAME=VALUE"),
    ],
)
def test_a_bad_hook_is_refused(hook: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        hooks.parse({"hooks": {"prestart": [hook]}})
    assert hooks.parse({"hooks": {"prestop": [hook]}}) == {}
    assert set(runtime_shape.SPEC["hooks"]) == set(hooks.KINDS)


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1.5KiB", 1536), ("1G", 1 << 30), ("10kb", 10240), ("-1", -1), ("5", 5)]
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert figures.size(text) == size
    for wrong in (f"{text}q", f"{text}_0", f"{text}e400", "9" * 400, "inf", "-5", ""):
        with pytest.raises(InvalidArgument, match="is not a size"):
            figures.size(wrong)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1h", 3600), ("1.5h", 5400), ("250us", 0.00025)]
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert figures.seconds(text) == pytest.approx(seconds)
    for wrong in (f"{text}x", f"{text}5", f"-{text}", "5", "s", "1..5s", "1_0s"):
        with pytest.raises(InvalidArgument, match="is not a duration"):
            figures.seconds(wrong)


def test_what_is_not_counted_is_not_in_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    def used(stats: Stats) -> object:
        monkeypatch.setattr(groups, "group_of", lambda _: SimpleNamespace(stats=lambda: stats))
        return figures.event(Record(id="a", bundle="/"))["data"]

    assert used(Stats(memory=5, pids=1)) == {"memory": {"usage": {"usage": 5}}, "pids": {"current": 1}}
    swapped = {"usage": {"usage": 5}, "swap": {"usage": 7}, "raw": {"swap": 2}}  # as runc has it: both together
    assert used(Stats(memory=5, swap=2)) == {"memory": swapped}


@pytest.mark.parametrize(("name", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35)])
def test_signals_have_numbers_and_names(name: str, number: int) -> None:
    assert verbs.signal_number(name) == number
    for wrong in ("SIGNOTHING", "65", "SIG_DFL"):
        with pytest.raises(InvalidArgument):
            verbs.signal_number(wrong)


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        *((user, "is not a number$") for user in ("root", "1000:", "-1", "1:x", "٣")),
        ("4294967296", "uid 4294967296 is not from 0 to 4294967294"),
        (f"1:{'9' * 5000}", "is not from 0 to 4294967294"),
    ],
)
def test_a_user_that_is_no_number_is_refused(user: str, sentence: str) -> None:
    options = arguments.Options({"user": user}, ["id", "true"])
    with pytest.raises(InvalidArgument, match=sentence):
        joining.wanted(options, {})


def test_a_pid_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    for path, cause in ((tmp_path / "pid", "Is a directory"), (tmp_path / "absent/pid", "No such file or directory")):
        with pytest.raises(InvalidArgument, match=f"PID file {path}: {cause}"):
            handed.write_pid(str(path), 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pid"]


def test_a_socket_with_a_name_too_long_for_one_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="path too long"):
        handed.send_descriptor(f"{tmp_path}/{'x' * 108}", 0, b"x")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "requires `runtime`"),
        ({"runtime": 5000}, "requires `deadline`"),
        ({"runtime": 0, "deadline": 5000}, "runtime must be greater than 0"),
        ({"runtime": 1023, "deadline": 5000}, "runtime 1023 must be between 1024"),
        ({"runtime": 6000, "deadline": 5000}, "runtime 6000 must be <= deadline 5000"),
        ({"runtime": 5000, "deadline": 7000, "period": 6000}, "deadline 7000 must be <= period 6000"),
    ],
)
def test_a_deadline_that_cannot_be_kept_is_said_to_be_so(given: dict[str, int], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        scheduling.parse({"scheduler": {"policy": "SCHED_DEADLINE", **given}}, {})


def test_a_memory_policy_is_a_mode_with_flags_and_nodes() -> None:
    policy = {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]}
    made = scheduling.parse({}, {"memoryPolicy": policy})
    assert made == scheduling.Scheduling(memory=(2 | 1 << 15, frozenset({0, 1})))
    for wrong in ({}, {"mode": "BIND"}, {**policy, "nodes": "x"}, {**policy, "nodes": "99999"}):
        with pytest.raises(InvalidArgument):
            scheduling.parse({}, {"memoryPolicy": wrong})


def test_schedulers_and_lists_of_cpus_are_read() -> None:
    process = {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    }
    made = scheduling.parse(process, {"personality": {"domain": "LINUX32"}})
    assert made == scheduling.Scheduling(policy=3, nice=5, io=2 << 13 | 4, personality=8)
    assert scheduling.numbers("0-2,7", "CPUs") == {0, 1, 2, 7}
    with pytest.raises(InvalidArgument):
        scheduling.parse({"scheduler": {"policy": "SCHED_NOW"}}, {})


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0,2-3"}, (2, {0, 2, 3})),
        ({"mode": "MPOL_PREFERRED", "nodes": "1", "flags": ["MPOL_F_STATIC_NODES"]}, (1 | 1 << 15, {1})),
        ({"mode": "MPOL_DEFAULT"}, (0, set())),
    ],
)
def test_a_memory_policy_is_a_mode_and_nodes(policy: dict[str, object], wanted: tuple[int, set[int]]) -> None:
    made = scheduling.parse({}, {"memoryPolicy": policy})
    assert made is not None
    assert made.memory == wanted


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"mode": "BIND"},
        {"mode": "MPOL_BIND", "nodes": "x"},
        {"mode": "MPOL_BIND", "nodes": "0-9876543210"},
        {"mode": "MPOL_BIND", "flags": ["x"]},
        {"mode": "MPOL_DEFAULT", "nodes": "0-7"},
    ],
)
def test_a_memory_policy_that_is_none_is_refused(policy: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=r"memory policy|requires 0 nodes but got 8"):
        scheduling.parse({}, {"memoryPolicy": policy})
