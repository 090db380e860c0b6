"""What surrounds the runtime, and must reach neither its containers nor its hooks: environment, descriptors, paths.

And hooks: programs of the host's, which the container must not be able to steer.
"""

import json
import os
from pathlib import Path

import pytest

from kestrel.testing.runtimes import Bundle, Runtime, until

pytestmark = pytest.mark.root

HOOKS = "CVE-2025-23266: the environment of hooks"
KINDS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
POISON = {"LD_PRELOAD": "/evil.so", "LD_AUDIT": "/evil.so", "PYTHONPATH": "/evil", "KTEST_POISON": "1"}
CALLER = {
    "PATH": os.environ["PATH"],
    "KTEST_CALLER": "secret",
    "NOTIFY_SOCKET": "",
    "HOME": "/nowhere",
    "LISTEN_FDS": "x",
}

NOTE = """#!/bin/sh
# argv[0] is the file to write to
cat >/dev/null
{ cat /proc/self/environ | tr '\\0' '\\n'; echo "cwd=$(readlink /proc/self/cwd)"; ls -l /proc/self/fd; } >"$1"
"""


def with_hooks(bundle: Bundle, *kinds: str, env: "list[str] | None" = None) -> Path:
    """Have hooks write down what they see of the world; returns the directory they write to."""
    program, notes = bundle.home / "hook", bundle.home / "notes"
    program.write_text(NOTE)
    program.chmod(0o755)
    notes.mkdir()
    bundle.spec["hooks"] = {}
    for kind in kinds:
        hook = {"path": str(program), "args": ["hook", str(notes / kind)]}
        bundle.spec["hooks"][kind] = [hook if env is None else {**hook, "env": env}]
    return notes


def live(runtime: Runtime, bundle: Bundle, cwd: "Path | None" = None) -> None:
    """Live through a container's whole life, so that every hook is run."""
    container = runtime.create(bundle, env=CALLER, cwd=cwd)
    runtime.ok("start", container, env=CALLER, cwd=cwd)
    runtime.ended(container)
    runtime.ok("delete", container, env=CALLER, cwd=cwd)


@pytest.mark.threat(20, HOOKS)
@pytest.mark.parametrize("env", [None, ["PATH=/bin:/usr/bin", "OWN=1"]])
def test_a_hook_has_the_environment_it_was_given_and_no_other(
    runtime: Runtime, bundle: Bundle, env: "list[str] | None"
) -> None:
    notes = with_hooks(bundle, *KINDS, env=env)
    bundle.spec["process"]["env"] += [f"{name}={value}" for name, value in POISON.items()]
    live(runtime, bundle.shell("true"))
    for kind in KINDS:
        words = (notes / kind).read_text().splitlines()
        names = {word.partition("=")[0] for word in words[: next(i for i, w in enumerate(words) if w[:4] == "cwd=")]}
        # what a shell that was given nothing makes of itself
        assert names - {"PWD", "SHLVL", "_", "OLDPWD", ""} <= {word.partition("=")[0] for word in env or ()}, kind


@pytest.mark.threat(20, HOOKS)
def test_a_hook_is_never_in_a_directory_of_the_container_s(runtime: Runtime, bundle: Bundle) -> None:
    notes = with_hooks(bundle, *KINDS)
    live(runtime, bundle.shell("true"), cwd=bundle.rootfs)
    for kind in KINDS:
        words = (notes / kind).read_text().splitlines()
        cwd = next(word.removeprefix("cwd=") for word in words if word.startswith("cwd="))
        assert not cwd.startswith(str(bundle.rootfs)), kind
        assert cwd == str(bundle.home), kind


def test_a_hook_has_no_descriptors_but_its_own(runtime: Runtime, bundle: Bundle) -> None:
    notes = with_hooks(bundle, *KINDS)
    live(runtime, bundle.shell("true"))
    for kind in KINDS:
        lines = [line for line in (notes / kind).read_text().splitlines() if " -> " in line]
        numbers = {line.split(" -> ")[0].split()[-1] for line in lines if "/proc/" not in line.split(" -> ")[1]}
        assert numbers <= {"0", "1", "2"}, (kind, lines)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
@pytest.mark.parametrize("flaw", ["missing", "not executable", "fails", "hangs", "a directory", "loops"])
def test_a_hook_that_does_not_work_ends_the_container_and_leaves_nothing(
    runtime: Runtime, bundle: Bundle, kind: str, flaw: str
) -> None:
    program = (bundle.rootfs if kind == "startContainer" else bundle.home) / "hook"
    path = "/hook" if kind == "startContainer" else str(program)
    if flaw == "a directory":
        program.mkdir()
    elif flaw == "loops":
        program.symlink_to("hook")
    elif flaw != "missing":
        program.write_text("#!/bin/sh\n" + ("exec sleep 20" if flaw == "hangs" else "echo because >&2; exit 3"))
        program.chmod(0o644 if flaw == "not executable" else 0o755)
    bundle.spec["hooks"] = {kind: [{"path": path, "timeout": 1}]}
    answer = runtime.run(bundle.shell(f"[ {kind} = poststart ] && exec sleep 20; touch /ran"))
    assert answer.code != 0
    assert answer.err
    assert "Traceback" not in answer.err
    assert not (bundle.rootfs / "ran").exists()
    assert runtime("state", runtime.running[-1]).code != 0
    assert not list(Path("/sys/fs/cgroup").glob(f"*{bundle.spec['linux']['cgroupsPath']}"))


def test_a_hook_that_is_killed_takes_what_it_has_started_with_it(runtime: Runtime, bundle: Bundle) -> None:
    program = bundle.home / "hook"
    program.write_text(f"#!/bin/sh\nsleep 20 &\necho $! >{bundle.home}/child\nwait\n")
    program.chmod(0o755)
    bundle.spec["hooks"] = {"createRuntime": [{"path": str(program), "timeout": 1}]}
    assert runtime.run(bundle.shell("true")).code != 0
    child = (bundle.home / "child").read_text().strip()
    until(lambda: not Path(f"/proc/{child}").exists(), 5)


# --- what the caller has --------------------------------------------------------------------------------------------

SHOW = "env; cat /proc/1/environ /proc/self/environ; cat /proc/1/cmdline /proc/self/mountinfo"


@pytest.mark.parametrize("how", ["run", "exec"])
def test_nothing_of_the_caller_s_environment_reaches_a_container(runtime: Runtime, bundle: Bundle, how: str) -> None:
    if how == "run":
        said = runtime.run(bundle.shell(SHOW), env={**CALLER, **POISON}).out
    else:
        container = runtime.start(bundle.arguments("sleep", "600"), env={**CALLER, **POISON})
        said = runtime.ok("exec", container, "sh", "-c", SHOW, env={**CALLER, **POISON})
    assert "PATH=/usr/local/sbin" in said
    for name in ("KTEST", "secret", "evil", "LD_", "PYTHON", "NOTIFY_SOCKET", "KESTREL", "/nowhere"):
        assert name not in said, name


def test_the_caller_s_environment_does_not_load_code_into_the_runtime(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    """A daemon's environment may hold what a user gave it: the runtime's interpreter must not act on it."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')\n")
    (tmp_path / "os.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')\n")
    env = {**CALLER, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py"), "PYTHONHOME": str(tmp_path)}
    assert runtime.run(bundle.shell("echo fine"), env=env, cwd=tmp_path).out == "fine\n"
    assert not (tmp_path / "loaded").exists()


def test_no_path_of_the_host_is_in_a_container_s_mounts(runtime: Runtime, bundle: Bundle) -> None:
    """Roots of mounts show paths within a filesystem; only the bundle's own root may be among them."""
    lines = runtime.run(bundle.shell("cat /proc/self/mountinfo")).out.splitlines()
    roots = {line.split()[4]: line.split()[3] for line in lines}
    mine = {place: root for place, root in roots.items() if place != "/" and "ktest" in root}
    assert not {place for place in mine if not place.startswith("/sys/fs/cgroup")}
    assert all(" - " in line for line in lines)
    assert not any(place.startswith("/tmp/ktest") for place in roots)


def test_listening_sockets_of_the_runtime_are_not_inside(runtime: Runtime, bundle: Bundle) -> None:
    bundle.spec["linux"]["namespaces"] = [n for n in bundle.spec["linux"]["namespaces"] if n["type"] != "network"]
    container = runtime.start(bundle.arguments("sleep", "600"))
    state = str(runtime.home)
    names = [line.split()[-1] for line in runtime.ok("exec", container, "cat", "/proc/net/unix").splitlines()]
    assert not [name for name in names if name.startswith("@") and (container in name or state in name)]
    for name in filter(lambda word: word.startswith(state), names):
        assert not os.stat(os.path.dirname(name)).st_mode & 0o066
    found = json.loads(runtime.ok("state", container))
    assert found["status"] == "running"


def test_a_container_that_waits_can_be_started_by_root_alone(runtime: Runtime, bundle: Bundle) -> None:
    container = runtime.create(bundle.shell("true"))
    for path in (runtime.home / "state" / container).rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & 0o022, f"{path} can be written to by others"
    pid = runtime.state(container)["pid"]
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
    assert runtime.state(container)["status"] == "created"
