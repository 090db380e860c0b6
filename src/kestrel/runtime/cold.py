"""Containers without a shim: made and joined by commands that end; `starting.py` and `ending.py` are others.

The plan, the parent's half and init are the same as under a shim. What differs is who keeps things: a container's
first process belongs to whoever reaps the orphans of the caller (conmon, containerd's shim), its output is the
caller's, and what is known of it lies on disk (`bundles.py`).
"""

from __future__ import annotations

import os
import select
import time

from kestrel.base.errors import FailedPrecondition, Internal, InvalidArgument, NotFound
from kestrel.base.values import dataclass, replace
from kestrel.linux import abi, signals, syscalls
from kestrel.linux.cgroups import Group, Hierarchy
from kestrel.oci.runtime_version import VERSION
from kestrel.runtime import bundles, filters, groups, hooks, parent, plan, process, report, state, users
from kestrel.runtime.bundles import Record
from kestrel.runtime.channel import Channel
from kestrel.runtime.init import Apart, Stdio
from kestrel.runtime.messages import INHERITED, error_from_json
from kestrel.runtime.starting import introduce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

STDIO = Stdio(stdin=0, stdout=1, stderr=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How a process is to be made, beside its spec. `carried`: we carry what its terminal shows to our own output.

    Without `cgroups` it stays in its creator's groups. Of the `preserved` descriptors, from 3 on, the first are sockets
    it is to be `listening` at.
    """

    cgroups: bool = True
    keyring: bool = True
    listening: int = 0
    preserved: int = 0
    pivot: bool = True
    size: tuple[int, int] = (0, 0)
    carried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A process that was made. The caller closes `master` (the terminal's, -1 without one) and `pidfd`."""

    pid: int
    pidfd: int
    master: int
    warnings: tuple[str, ...] = ()


# --- create ---------------------------------------------------------------------------------------------------------


def create(root: str, identifier: str, bundle: str, spec: dict[str, Any], wishes: Wishes) -> tuple[Record, Made]:
    """Make a container ready: everything but the execution of its program. The working directory is the bundle's."""
    hide()
    place = bundles.claim(root, bundles.check_id(identifier))
    try:
        return _create(root, place, identifier, bundle, users.with_maps(spec), wishes)
    except BaseException:
        bundles.forget(root, identifier)
        raise


def _create(
    root: str, place: str, identifier: str, bundle: str, spec: dict[str, Any], wishes: Wishes
) -> tuple[Record, Made]:
    _check_root(spec, bundle)
    record = Record(
        id=identifier,
        bundle=bundle,
        oci_version=spec.get("ociVersion") or VERSION,
        created=_now(),
        rootfs=os.path.abspath(spec["root"]["path"]),
        cgroup=_cgroup_path(spec, identifier) if wishes.cgroups else "",
        own_pids=any(entry.get("type") == "pid" for entry in (spec.get("linux") or {}).get("namespaces") or ()),
        owner="root" if os.geteuid() == 0 else str(os.geteuid()),
        annotations=spec.get("annotations") or {},
    )
    found = groups.hierarchy() if wishes.cgroups else None
    try:
        made = _plan(spec, record, found, root, wishes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        wrong = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidArgument(f"{bundle}/{bundles.CONFIG} is not of the specification's form: {wrong}") from error
    _debug(made)
    if found is not None:
        groups.require_unused(found, record.cgroup)
    bundles.save(place, record)  # from here on `delete --force` knows what to remove, whatever becomes of us
    group = groups.make(found, record.cgroup, spec.get("linux") or {}) if found is not None else None
    creation = Creation(root, place, spec, record)
    try:
        return creation.run(made, group, wishes)
    except BaseException:
        creation.undo(group)
        raise


def _debug(made: plan.Plan) -> None:
    if report.debugging():
        flags = [f"seccomp filter flags: {made.process.filter.flags}"] if made.process.filter is not None else []
        for line in [*made.describe(), *flags]:
            report.debug(line)


def _now() -> str:
    """Return the time in UTC, as RFC 3339 has it."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def hide() -> None:
    """Let nobody in a container look into this process and its forks, which live there for a while (CVE-2016-9962)."""
    syscalls.prctl(abi.PR_SET_DUMPABLE, 0)


def _check_root(spec: Mapping[str, Any], bundle: str) -> None:
    path = (spec.get("root") or {}).get("path")
    if not isinstance(path, str) or not path:
        raise InvalidArgument(f"root.path is missing in {bundle}/{bundles.CONFIG}")
    if not os.path.isdir(path):
        wrong = "is not a directory" if os.path.exists(path) else "does not exist: no such file or directory"
        raise NotFound(f"root filesystem {os.path.abspath(path)} {wrong}")


def _cgroup_path(spec: Mapping[str, Any], identifier: str) -> str:
    """Return the path of the group: the spec's, from the root of each hierarchy, else one named by the id."""
    path = (spec.get("linux") or {}).get("cgroupsPath") or f"/{identifier}"
    if not isinstance(path, str) or any(part == ".." for part in path.split("/")):
        raise InvalidArgument(f"linux.cgroupsPath {path!r} is not a path of a control group")
    if ":" in path and path.count(":") == 2 and not path.startswith("/"):
        raise InvalidArgument(
            f"linux.cgroupsPath {path!r} is of systemd's form (slice:prefix:name)",
            hint="this runtime drives cgroupfs itself: use the caller's cgroupfs driver",
        )
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        raise InvalidArgument(f"linux.cgroupsPath {path!r} is the root of all control groups: name one below it")
    return "/".join(parts)


def _plan(spec: dict[str, Any], record: Record, found: Hierarchy | None, root: str, wishes: Wishes) -> plan.Plan:
    linux = spec.get("linux") or {}
    process = {**(spec.get("process") or {})}
    if wishes.listening:
        told = (f"LISTEN_FDS={wishes.listening}", "LISTEN_PID=1")  # `man 3 sd_listen_fds`
        process["env"] = [*(process.get("env") or ()), *told]
    return plan.build(
        {**spec, "root": {**spec["root"], "path": record.rootfs}, "process": process},
        seccomp=filters.compiled(linux.get("seccomp"), f"{root}/.seccomp"),
        cgroup_version=found.version if found is not None else 2,
        cgroup_hierarchies=found.hierarchies(everywhere=True) if found is not None else (),
        size=wishes.size,
        state=record.describe(state.CREATING),
        pivot=wishes.pivot,
        cgroup=record.cgroup,
    )


class Creation:
    """A container while it is being created: what has been made so far, and how to take it back."""

    def __init__(self, root: str, place: str, spec: dict[str, Any], record: Record) -> None:
        self._root = root
        self._place = place
        self._spec = spec
        self._record = record
        self._hooks = hooks.parse(spec)
        self._pidfd = -1
        self._master = -1
        self._hooked = False

    def run(self, made: plan.Plan, group: Group | None, wishes: Wishes) -> tuple[Record, Made]:
        """Clone the first process, and wait until it is ready or has failed."""
        gate = bundles.make_gate(self._place)
        namespace, made = _pid_namespace(made)
        try:
            apart = Apart(gate=gate, keyring=wishes.keyring, preserved=wishes.preserved)
            started = parent.create(made, group, STDIO, namespace, apart)
        finally:
            gate.close()
            if namespace >= 0:
                os.close(namespace)
        self._pidfd = started.pidfd
        self._record = self._record.with_process(started.pid)  # who it is, before anything can fail
        self._record = self._record.with_process(started.pid, bundles.start_time(started.pid))
        bundles.save_config(self._place, self._spec)  # while the other one is busy
        channel = Channel(started.channel)
        try:
            warnings = self._prepare(channel, group, wishes)
            bundles.save(self._place, self._record)
            channel.offer({"kept": True})
        finally:
            channel.close()
        return self._record, Made(pid=started.pid, pidfd=started.pidfd, master=self._master, warnings=warnings)

    def _prepare(self, channel: Channel, group: Group | None, wishes: Wishes) -> tuple[str, ...]:
        while True:
            heard = channel.receive()
            if heard is None:
                ended = self._how_it_ended()
                if group is not None and group.oom_kills():
                    raise InvalidArgument("the memory limit is too low to start the container")
                raise Internal(f"the container's init ended before it was ready ({ended})")
            message, descriptors = heard
            if "error" in message:
                self._hooked = self._hooked or "createContainer" in self._hooks  # it may have been one of these
                raise error_from_json(message["error"])
            if "hooks" in message:
                self._run_hooks()
                channel.offer({"go": True})
            elif "listener" in message:
                introduce(self._spec, self._record.pid, message, self._record.describe(state.CREATING))
                channel.offer({"go": True})
            elif "ready" in message:
                self._master = _master(descriptors, wishes)
                return tuple(message["warnings"])

    def _run_hooks(self) -> None:
        self._hooked = True
        told = self._record.describe(state.CREATING)
        for kind in hooks.OUTSIDE:
            hooks.run(kind, self._hooks.get(kind, ()), told)

    def _how_it_ended(self) -> str:
        _, status = os.waitpid(self._record.pid, 0)
        self._record = self._record.with_process(0)
        return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"

    def undo(self, group: Group | None) -> None:
        """Take back what was made, and go on with the hooks of the end if those of the beginning were run."""
        if self._pidfd >= 0:
            if self._record.pid:
                signals.pidfd_send_signal(self._pidfd, signals.SIGKILL)
                os.waitpid(self._record.pid, 0)
            os.close(self._pidfd)
        if group is not None:
            groups.empty(group)
            groups.remove(group)
        if self._hooked and os.path.isdir(self._place):  # else somebody has deleted it, and run them
            told = self._record.with_process(0).describe(state.STOPPED)
            for hook in self._hooks.get("poststop", ()):
                hooks.run_one(hook, told)


def _master(descriptors: list[int], wishes: Wishes) -> int:
    if not descriptors:
        return -1
    if wishes.carried:
        from kestrel.runtime import console

        console.as_written(descriptors[0])
    return descriptors[0]


def _pid_namespace(made: plan.Plan) -> tuple[int, plan.Plan]:
    """A PID namespace that exists cannot be joined from inside: take it out of the plan, as a descriptor."""
    for bit, path in made.joined:
        if bit == abi.CLONE_NEWPID:
            others = tuple(entry for entry in made.joined if entry[0] != bit)
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC), replace(made, joined=others)
    return -1, made


# --- exec -----------------------------------------------------------------------------------------------------------


def execute(
    root: str,
    record: Record,
    wanted: dict[str, Any],
    wishes: Wishes,
    *,
    paused: bool = False,
    below: Mapping[str, str] | None = None,
) -> Made:
    """Start a further process in a running container; what `wanted` leaves out is as the container's first has it.

    `below` says which groups below the container's it is to be in, by controller.
    """
    hide()
    now = bundles.status(root, record)
    if now == state.PAUSED and not paused:
        raise FailedPrecondition("cannot exec in a paused container (use --ignore-paused to override)")
    if now not in (state.CREATED, state.RUNNING, state.PAUSED):
        state.require("exec", now, record.id)
    spec = bundles.load_config(root, record.id)
    given = spec.get("process") or {}
    for name in INHERITED:
        if name not in wanted and name in given:
            wanted[name] = given[name]
    linux = spec.get("linux") or {}
    task = process.parse(wanted, filters.compiled(linux.get("seccomp"), f"{root}/.seccomp"), linux)
    asked = wanted.get("consoleSize") or {}
    size = (asked["width"], asked["height"]) if asked else wishes.size
    report.debug(
        f"run {' '.join(task.args)} as user {task.uid}:{task.gid} in container {record.id}, process {record.pid}"
    )
    if task.cpus[0]:
        report.debug(f"affinity: {sum(1 << cpu for cpu in task.cpus[0]):#x}")
    group = groups.group_of(record)
    if below and group is not None:
        try:
            group = group.within(below)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
    try:
        target = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise FailedPrecondition(f"container not running: {record.id}") from None
    try:
        apart = Apart(keyring=wishes.keyring, preserved=wishes.preserved)
        started = parent.join(target, lambda: task, group, STDIO, size, apart, users.parse(spec.get("linux") or {}))
    except FileNotFoundError as error:
        raise NotFound(f"adding pid {os.getpid()} to its cgroup: no such file or directory: {error.filename}") from None
    finally:
        os.close(target)
    os.close(started.pidfd)
    channel = Channel(started.channel)
    try:
        heard = _heard(channel, started.pid)
        return _joined(channel, heard, wishes, lambda pid, told: introduce(spec, pid, told, record.describe(now)))
    finally:
        channel.close()
        os.waitpid(started.pid, 0)


def _heard(channel: Channel, go_between: int) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield what a process that joins and its go-between say, the latter first, which says what number it has.

    Nothing comes from a process whose go-between was killed before it said so: it is not to go on, unknown to anyone.
    """
    heard = channel.receive()
    if heard is not None and not {"pid", "error"} & heard[0].keys():
        os.waitid(os.P_PID, go_between, os.WEXITED | os.WNOWAIT)  # the other was quicker
        said = channel.buffered or select.select([channel], [], [], 0)[0]
        first = channel.receive() if said else None
        if first is None:
            return
        yield first
    while heard is not None:
        yield heard
        heard = channel.receive()


def _joined(
    channel: Channel,
    heard: Iterator[tuple[dict[str, Any], list[int]]],
    wishes: Wishes,
    introduce: Callable[[int, Mapping[str, Any]], None],
) -> Made:
    """Follow a process on its way in, until its program runs."""
    pid, pidfd, master, warnings, ready = 0, -1, -1, (), False
    for message, descriptors in heard:
        if "error" in message:
            if pid:
                os.waitpid(pid, 0)
            raise error_from_json(message["error"])
        if "pid" in message:
            pid, pidfd = message["pid"], descriptors[0]
        elif "listener" in message:
            introduce(pid, message)
            channel.offer({"go": True})
        elif "ready" in message:
            master, warnings, ready = _master(descriptors, wishes), tuple(message["warnings"]), True
            channel.offer({"go": True})
    if not ready:
        raise Internal("the process ended before its program ran")
    return Made(pid=pid, pidfd=pidfd, master=master, warnings=warnings)
