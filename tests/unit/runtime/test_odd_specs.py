"""Specs with one member that is something else: each is refused in words or understood, and nothing else happens."""

import itertools
import json
from typing import Any

import pytest

from kestrel.base.errors import KestrelError
from kestrel.oci import runtime_shape, runtime_spec
from kestrel.oci.runtime_defaults import default_seccomp, default_spec
from kestrel.oci.runtime_shape import fitted
from kestrel.runtime import plan, resources

ODD = {
    "null": None, "true": True, "minus one": -1, "huge": 2**70, "a fraction": 0.5, "text": "odd", "empty text": "",
    "a list": [1], "a list of lists": [[[]]], "an object": {"odd": {"odd": 1}},
}  # fmt: skip
MEMBERS = (
    "ociVersion", "root", "root.path", "root.readonly", "process", "process.args", "process.env", "process.cwd",
    "process.user", "process.capabilities", "process.capabilities.bounding", "process.rlimits", "process.terminal",
    "process.consoleSize", "process.noNewPrivileges", "process.oomScoreAdj", "process.scheduler", "process.ioPriority",
    "process.execCPUAffinity", "hostname", "domainname", "mounts", "mounts.0", "mounts.0.destination",
    "mounts.0.options", "mounts.0.uidMappings", "hooks", "hooks.prestart", "hooks.prestart.0.args",
    "hooks.prestart.0.env", "annotations", "linux", "linux.namespaces", "linux.namespaces.0", "linux.namespaces.0.type",
    "linux.namespaces.0.path", "linux.devices", "linux.devices.0", "linux.devices.0.path", "linux.devices.0.major",
    "linux.devices.0.fileMode", "linux.cgroupsPath", "linux.resources", "linux.resources.memory",
    "linux.resources.memory.limit", "linux.resources.cpu", "linux.resources.devices", "linux.resources.devices.0",
    "linux.resources.pids", "linux.resources.unified", "linux.sysctl", "linux.seccomp", "linux.seccomp.defaultAction",
    "linux.seccomp.syscalls", "linux.seccomp.syscalls.0.names", "linux.seccomp.syscalls.0.args",
    "linux.seccomp.architectures", "linux.rootfsPropagation", "linux.maskedPaths", "linux.readonlyPaths",
    "linux.mountLabel", "linux.uidMappings", "linux.timeOffsets", "linux.personality",
)  # fmt: skip


def changed(spec: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a spec with one member replaced; what lies on the way there is made."""
    copy: Any = json.loads(json.dumps(spec))
    names = path.split(".")
    here = copy
    for name, following in itertools.pairwise(names):
        if isinstance(here, list):
            here.extend({} for _ in range(int(name) + 1 - len(here)))
            here = here[int(name)]
        else:
            here = here.setdefault(name, [] if following.isdigit() else {})
    if isinstance(here, list):
        here[int(names[-1]) : int(names[-1]) + 1] = [value]
    else:
        here[names[-1]] = value
    return dict(copy)


def whole() -> dict[str, Any]:
    spec = default_spec(["true"], namespaces=("pid", "mount", "ipc", "uts", "network"))
    spec["linux"]["seccomp"] = default_seccomp()
    return spec


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("odd", ODD)
def test_a_spec_with_an_odd_member_is_refused_or_understood(member: str, odd: str) -> None:
    try:
        spec = fitted(changed(whole(), member, ODD[odd]), runtime_shape.SPEC)
        plan.build(spec, state={}).describe()
        resources.limits(spec.get("linux", {}).get("resources") or {})
        resources.device_rules(spec.get("linux", {}).get("resources") or {})
    except KestrelError:
        pass  # in words


@pytest.mark.parametrize(
    ("value", "shape", "sentence"),
    [
        (True, runtime_shape.U32, "it is not a whole number from 0 to 4294967295: True"),
        (1.0, runtime_shape.U32, "it is not a whole number from 0 to 4294967295: 1.0"),
        (2**32, runtime_shape.U32, "it is not a whole number from 0 to 4294967295: 4294967296"),
        (0, runtime_shape.SWITCH, "it is not true or false: 0"),
        ("a\0b", runtime_shape.TEXT, r"it is not text: 'a\x00b'"),
        ("\ud800", runtime_shape.TEXT, r"it is not text: '\ud800'"),
        (["a", None], ["text"], "it[1] is not text: None"),
        ({"a": []}, {"": ("b",), "a": ["text"]}, "it has no b"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, shape: Any, sentence: str) -> None:
    with pytest.raises(KestrelError) as refused:
        fitted(value, shape, "it")
    assert refused.value.message == sentence


def test_what_is_unknown_stays_and_what_is_null_goes() -> None:
    given = {"vendor": {"x": [None]}, "root": None, "process": {"cwd": None, "args": ["a"]}}
    assert fitted(given, runtime_shape.SPEC) == {"vendor": {"x": [None]}, "process": {"args": ["a"]}}


def test_every_member_that_has_a_type_has_a_shape() -> None:
    pairs = [
        (runtime_spec.Spec, runtime_shape.SPEC),
        (runtime_spec.Process, runtime_shape.PROCESS),
        (runtime_spec.Linux, runtime_shape.LINUX),
    ]
    for typed, shape in pairs:
        assert set(typed.__annotations__) <= set(shape), typed.__name__
