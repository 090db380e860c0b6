"""One container of a shim: made ready, started, watched, ended.

Nothing here waits. `create` clones the child and returns; the child's messages and its end arrive through the loop
and move the container on (`state.py`). An end is told in a fixed order: everything in the container's group is dead,
its output is read and written, the exit file is on disk, and only then does anybody hear of it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from kestrel.base import plainjson
from kestrel.base.errors import FailedPrecondition, Internal, InvalidArgument, KestrelError, Unimplemented
from kestrel.base.values import dataclass, replace
from kestrel.linux import abi, signals
from kestrel.linux.cgroups import Group, Hierarchy, OomWatch
from kestrel.linux.mounts import opened
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import channel, filters, loop, parent, plan, resources, state, users
from kestrel.runtime.init import Stdio
from kestrel.runtime.journal import note
from kestrel.runtime.log import LogWriter
from kestrel.runtime.messages import (
    ContainerStatus,
    CreateRequest,
    Exited,
    LogFile,
    OutOfMemory,
    error_from_json,
    from_json,
    to_json,
)
from kestrel.runtime.process import Filter
from kestrel.runtime.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from kestrel.runtime.messages import JSON

    Reply = Callable[["dict[str, Any] | None", "BaseException | None"], None]

POLL = 0.002  # seconds between two looks at a group that is being killed
PATIENCE = 5.0  # seconds after which we report an end although the group still has processes (in state D)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a container's shim gives it. `namespaces` are types that are the sandbox's and not the host's."""

    events: loop.Loop
    hierarchy: Hierarchy | None
    directory: str
    cache: str
    namespaces: frozenset[str]
    pid_namespace: int
    oom_score: int
    exited: Callable[[Exited], None]
    out_of_memory: Callable[[OutOfMemory], None]
    user_namespace: Callable[[users.Ids | None], int]


class Container:
    """A container and everything the shim holds for it."""

    def __init__(self, request: CreateRequest, around: Surroundings) -> None:
        self.id = request.container_id
        self.process = request.process
        self.status = state.CREATING
        self.pid = 0
        self.pidfd = -1
        self.group: Group | None = None
        self.ids: users.Ids | None = None
        self.exit: Exited | None = None
        self._around = around
        self._request = request
        self._channel: channel.Channel | None = None
        self._streams: Streams | None = None
        self._filter, self._filter_flags = -1, 0
        self._stdin = -1
        self._outputs: dict[str, int] = {}
        self._log: LogWriter | None = None
        self._pending: Reply | None = None
        self._failure: KestrelError | None = None
        self._warnings: list[str] = []
        self._started = 0.0
        self._oom: OomWatch | None = None
        self._oom_seen = 0

    # --- between two shims ---

    def at_rest(self) -> set[int]:
        """Return what is watched of it while nothing is under way that only this process knows of."""
        if self._pending is not None or self.status in (state.CREATING, state.CREATED):
            return set()
        streams = self._streams.at_rest() if self._streams is not None else set()
        return streams | ({self._oom.fd} if self._oom is not None else set())

    def watch_end(self) -> None:
        """Let its end be something that is watched: the keeper sleeps on that."""
        if self.status != state.STOPPED:
            self._around.events.watch(self.pidfd, loop.READ, lambda _events: None)

    def write_down(self) -> JSON:
        """Return what another process, with our descriptors, needs to go on with `read_up`; only while at rest."""
        return {
            "id": self.id,
            "process": self.process,
            "status": self.status,
            "pid": self.pid,
            "pidfd": self.pidfd,
            "group": self.group.path if self.group is not None else None,
            "ids": self.ids.to_json() if self.ids is not None else None,
            "exit": to_json(self.exit) if self.exit is not None else None,
            "streams": self._streams.write_down() if self._streams is not None and self.exit is None else None,
            "filter": [self._filter, self._filter_flags],
            "started": self._started,
            "oom": [self._oom.fd, self._oom.urgent] if self._oom is not None else None,
            "oom_seen": self._oom_seen,
        }

    @classmethod
    def read_up(cls, given: JSON, around: Surroundings) -> Container:
        """Return the container that was written down."""
        found = cls(CreateRequest(container_id=given["id"], spec="", process=given["process"]), around)
        found.status, found.pid, found.pidfd = given["status"], given["pid"], given["pidfd"]
        if given["group"] is not None and around.hierarchy is not None:
            found.group = around.hierarchy.group(given["group"])
        found.ids = users.Ids.from_json(given["ids"]) if given["ids"] is not None else None
        found.exit = from_json(Exited, given["exit"]) if given["exit"] is not None else None
        if given["streams"] is not None:
            found._streams = Streams.read_up(around.events, given["streams"])
            found._log = found._streams.log
        found._filter, found._filter_flags = given["filter"]
        found._started, found._oom_seen = given["started"], given["oom_seen"]
        if given["oom"] is not None:
            found._watch_memory(OomWatch(*given["oom"]))
        return found

    # --- create ---

    def create(self, reply: Reply) -> None:
        """Clone the child; `reply` is called when it is ready or has failed. Raises what can be told at once."""
        request, hierarchy = self._request, self._around.hierarchy
        try:
            if request.log is not None:
                self._log = LogWriter(from_json(LogFile, request.log))
            born_inside = hierarchy is not None and hierarchy.version == 2
            if born_inside:
                self._make_group()
            self._begin()
            if not born_inside:
                self._make_group()  # meanwhile the child reads its spec
            assert self._channel is not None
            parent.tell_groups(self._channel, self.group)
        except BaseException:
            if self._channel is not None:
                os.kill(self.pid, signals.SIGKILL)
                self._channel.close()
            self._release()
            raise
        self._pending = reply
        # The spec has been inherited; of the rest only what a later exec inherits is still needed.
        self._request = replace(request, spec="", process="", rootfs=None, resources={})
        self._around.events.watch(self._channel.fileno(), loop.READ, self._heard)

    def _begin(self) -> None:
        request, around = self._request, self._around
        theirs = self._make_stdio()
        try:
            new = _bits(request.namespaces)
            namespace = -1 if new & abi.CLONE_NEWPID else _processes(request, around.pid_namespace)
            if "user" in request.namespaces:
                self.ids = users.ranges(request.uid_mappings, request.gid_mappings, "linux")
            try:
                started = parent.begin(
                    new,
                    lambda heard: assembled(request, around, heard),
                    self.group,
                    theirs,
                    namespace,
                    self.ids,
                    around.user_namespace(self.ids),
                )
            finally:
                if request.pid_namespace:
                    os.close(namespace)
        finally:
            for fd in {theirs.stdin, theirs.stdout, theirs.stderr} - {-1}:
                os.close(fd)
        self.pid, self.pidfd, self._channel = started.pid, started.pidfd, channel.Channel(started.channel)

    def _make_group(self) -> None:
        hierarchy, path = self._around.hierarchy, self._request.cgroup
        if hierarchy is None or not path:
            return
        wanted = self._request.resources
        limits = resources.limits(wanted)
        self.group = hierarchy.create(path, limits)
        try:
            self.group.limit(limits)
            rules = resources.device_rules(wanted)
            if rules is not None and "devices" in hierarchy.controllers:
                self.group.devices(rules)
        except OSError as error:
            raise InvalidArgument(f"{error.strerror}: {error.filename}", hint="the kernel refused a limit") from error
        watch = self.group.oom_watch()
        if watch is not None:
            self._watch_memory(watch)

    def _watch_memory(self, watch: OomWatch) -> None:
        self._oom = watch
        self._around.events.watch(watch.fd, loop.PRIORITY if watch.urgent else loop.READ, self._memory_event)

    def _make_stdio(self) -> Stdio:
        """Make the pipes; ours go to `_stdin` and `_outputs`. A terminal's master comes from the child later."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self._request.terminal:
            return Stdio(stdin=null, stdout=null, stderr=null)
        stdin = null
        if self._request.stdin:
            os.close(null)
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        ends = {}
        for stream in ("stdout", "stderr"):
            self._outputs[stream], ends[stream] = os.pipe2(os.O_CLOEXEC)
        return Stdio(stdin=stdin, stdout=ends["stdout"], stderr=ends["stderr"])

    # --- what the child says ---

    def _heard(self, _events: int) -> None:
        assert self._channel is not None
        heard = self._channel.receive()
        if heard is None:
            self._hang_up()
            return
        self._take(*heard)
        if self._channel is not None and self._channel.buffered:
            self._heard(0)

    def _take(self, message: channel.Message, descriptors: list[int]) -> None:
        if "error" in message:
            self._failure = error_from_json(message["error"])
        elif "filter" in message:
            self._filter, self._filter_flags = descriptors[0], message["filter"]
        elif "ready" in message:
            self._ready(message, descriptors)

    def _ready(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if descriptors:
            self._stdin = descriptors[0]
            self._outputs = {"stdout": descriptors[0]}
        self._warnings = message["warnings"]
        self._streams = Streams(
            self._around.events,
            self._log,
            outputs=self._outputs,
            stdin=self._stdin,
            stdin_once=self._request.stdin_once,
        )
        self._stdin, self._outputs = -1, {}  # they are its own now
        self.status = state.CREATED
        self._finish_request({"pid": self.pid, "warnings": self._warnings}, None)

    def _hang_up(self) -> None:
        """The channel closed: the program runs, if we said go and heard no error; otherwise the child is ending."""
        assert self._channel is not None
        self._around.events.forget(self._channel.fileno())
        self._channel.close()
        self._channel = None
        if self.status == state.CREATED and self._failure is None and self._pending is not None:
            self.status = state.RUNNING
            self._started = time.time()
            self._finish_request({"pid": self.pid}, None)

    def _finish_request(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        reply, self._pending = self._pending, None
        if reply is not None:
            reply(result, error)

    # --- operations ---

    def start(self, reply: Reply) -> None:
        """Let the program run; `reply` is called when exec has succeeded, or has failed and the child is gone."""
        state.require("start", self.status, self.id)
        self._pending = reply
        if self._channel is not None:
            self._channel.offer({"go": True})  # if it has died, known already or not, its end answers

    def kill(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the first process, or to every process of the container's group."""
        state.require("kill", self.status, self.id)
        if everyone and self.group is not None:
            for pid in self.group.pids():
                _send(os.kill, pid, number)
        else:  # by its descriptor: the keeper may have reaped it already, and the number be another's
            _send(signals.pidfd_send_signal, self.pidfd, number)
        if number == signals.SIGKILL and self.status == state.PAUSED:
            self.freeze(frozen=False)

    def freeze(self, *, frozen: bool) -> None:
        """Stop all processes where they are, or let them go on."""
        state.require("pause" if frozen else "resume", self.status, self.id)
        if self.group is None:
            raise InvalidArgument(f"container {self.id} has no cgroup and cannot be paused")
        self.group.freeze(frozen)
        self.status = state.PAUSED if frozen else state.RUNNING

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size, in characters."""
        state.require("resize", self.status, self.id)
        if self._streams is None or self._streams.terminal < 0:
            raise InvalidArgument(f"container {self.id} has no terminal")
        fcntl.ioctl(self._streams.terminal, abi.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def attach(self, *, outputs: frozenset[str], stdin: bool, lossless: bool) -> int:
        """Return a descriptor for an attacher (see `streams`); the caller closes it once it is sent."""
        state.require("attach", self.status, self.id)
        assert self._streams is not None
        ours, theirs = channel.pair()
        self._streams.attach(ours, outputs=outputs, stdin=stdin, lossless=lossless)
        return theirs.detach()

    def reopen_log(self) -> None:
        """Open the log's path again after somebody renamed the file."""
        if self._log is not None and self.status != state.STOPPED:
            self._log.reopen()

    def update(self, wanted: dict[str, Any]) -> None:
        """Change limits while it runs."""
        state.require("update", self.status, self.id)
        if self.group is None:
            raise InvalidArgument(f"container {self.id} has no cgroup and so no limits")
        limits = resources.limits(wanted)
        assert self._around.hierarchy is not None
        try:
            # Version 1 makes the groups of optional controllers (cpuset) only when a limit asks for them.
            if set(self._around.hierarchy.hierarchies(limits)) - set(self._around.hierarchy.hierarchies()):
                self._around.hierarchy.create(self.group.path, limits)
                for pid in self.group.pids():
                    self.group.attach(pid)
            self.group.limit(limits)
        except OSError as error:
            raise InvalidArgument(f"{error.strerror}: {error.filename}") from error

    def describe(self) -> ContainerStatus:
        """Return its state."""
        ended = self.exit
        return ContainerStatus(
            container_id=self.id,
            status=self.status,
            pid=0 if ended is not None else self.pid,
            exit_code=ended.exit_code if ended is not None else None,
            oom=ended.oom if ended is not None else False,
            started=self._started,
            finished=ended.time if ended is not None else 0.0,
        )

    def read_filter(self) -> Filter | None:
        """Return the seccomp filter that its processes have."""
        if self._filter < 0:
            return None
        program = os.pread(self._filter, os.fstat(self._filter).st_size, 0)
        return Filter(program=program, flags=self._filter_flags)

    # --- the end ---

    def reaped(self, status: int) -> None:
        """The first process has ended with this wait status."""
        if self._channel is not None:
            self._drain_channel()
        due = time.monotonic() + PATIENCE
        self._bury(state.exit_code(status), due)

    def _drain_channel(self) -> None:
        """Hear what the child said last; its end of the channel is closed, so this does not wait."""
        while self._channel is not None:
            self._heard(0)

    def _bury(self, code: int, due: float) -> None:
        """Wait until nothing of the container lives, then tell."""
        if not self._empty():
            if time.monotonic() < due:
                self._around.events.after(POLL, lambda: self._bury(code, due))
                return
            note(f"{self.id}: processes do not die")
        self._count_kills()  # the kernel's notice may come later than the end (cgroup_file_notify delays it)
        oom = self._oom_seen > 0
        if self._pending is not None or self.status == state.CREATING:
            self._stillborn(code, oom=oom)
            return
        self._end(code, oom=oom)
        assert self.exit is not None
        self._around.exited(self.exit)

    def _empty(self) -> bool:
        """Kill what is left in the group; say whether there was nothing. A group that cannot be read is tried again."""
        try:
            return self.group is None or self.group.kill()
        except OSError as error:
            note(f"{self.id}: its group cannot be emptied: {error}")
            return False

    def _end(self, code: int, *, oom: bool) -> None:
        if self._streams is not None:
            self._streams.finish()
        elif self._log is not None:
            self._log.finish()
        self.exit = Exited(container_id=self.id, exit_code=code, oom=oom, time=time.time())
        try:
            state.write_exit(self._around.directory, self.exit)
        except OSError as error:
            note(f"{self.id}: the exit file could not be written: {error}")
        self.status = state.STOPPED
        self._forget_memory()

    def _stillborn(self, code: int, *, oom: bool) -> None:
        """It ended before its program ran: the one who asked gets the reason, as an error."""
        error = self._failure
        if error is None:
            how = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
            error = Internal(f"the container's init ended before its program ran ({how})")
            if oom:
                error = InvalidArgument("the memory limit is too low to start the container", exit_code=code)
        if self.status == state.CREATING:
            self._release()
        else:
            wanted = error.context.get("exit_code", code)
            self._end(wanted if isinstance(wanted, int) else code, oom=oom)
        self._finish_request(None, error)

    @property
    def gone(self) -> bool:
        """Whether creating it failed, so that there is nothing to delete."""
        return self.status == state.CREATING and self._pending is None

    def release(self) -> None:
        """Let go of everything; it must have stopped. Raises OSError when its group is still in use."""
        self._release()
        state.forget_exit(self._around.directory, self.id)

    def _release(self) -> None:
        self._forget_memory()
        if self._streams is None:
            for fd in {self._stdin, *self._outputs.values()} - {-1}:
                os.close(fd)
            if self._log is not None:
                self._log.finish()
        self._stdin, self._outputs, self._log = -1, {}, None
        for fd in {self.pidfd, self._filter} - {-1}:
            os.close(fd)
        self.pidfd = self._filter = -1
        if self.group is not None:
            self.group.remove()

    # --- memory ---

    def _memory_event(self, _events: int) -> None:
        try:
            assert self._oom is not None
            self._oom.take()
        except OSError:
            self._forget_memory()
            return
        self._count_kills()

    def _count_kills(self) -> None:
        """Tell if the kernel has killed for memory since the last look."""
        try:
            kills = self.group.oom_kills() if self.group is not None else 0
        except OSError as error:
            note(f"{self.id}: kills for memory cannot be counted: {error}")
            return
        if kills > self._oom_seen:
            self._oom_seen = kills
            self._around.out_of_memory(OutOfMemory(container_id=self.id, time=time.time()))

    def _forget_memory(self) -> None:
        if self._oom is not None:
            self._around.events.forget(self._oom.fd)
            os.close(self._oom.fd)
            self._oom = None


def _send(send: Callable[[int, int], None], target: int, number: int) -> None:
    try:
        send(target, number)
    except ProcessLookupError:
        pass


def _bits(kinds: Iterable[str]) -> int:
    """Return the CLONE_NEW* bits of types of namespace."""
    new = 0
    for kind in set(kinds) - {"user"}:
        if kind not in plan.KINDS:
            raise InvalidArgument(f"unknown namespace type {kind!r}")
        new |= plan.KINDS[kind]
    return new


def _processes(request: CreateRequest, shared: int) -> int:
    """Return the PID namespace to be born in: another container's, opened for that, or the sandbox's."""
    if not request.pid_namespace:
        return shared
    try:
        return os.open(request.pid_namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition("the processes to be among have ended") from error


def assembled(request: CreateRequest, around: Surroundings, heard: channel.Channel) -> plan.Plan:
    """Return the plan of a container; called in its child, which hands its filter to the shim for later use."""
    spec = plainjson.loads(request.spec)
    linux, process = spec.get("linux") or {}, spec.setdefault("process", {})
    if request.pid_namespace:  # it was born there: from inside it cannot be joined
        linux["namespaces"] = [entry for entry in linux["namespaces"] if entry["type"] != "pid"]
    if request.terminal:
        process["terminal"] = True
    # The shim may be better protected from the OOM killer than its containers should be.
    process.setdefault("oomScoreAdj", around.oom_score)
    hierarchy = around.hierarchy
    found = filters.compiled(linux.get("seccomp"), around.cache)
    if found is not None:
        if found.flags & abi.SECCOMP_FILTER_FLAG_NEW_LISTENER:
            raise Unimplemented("seccomp agents are not served here", hint="use `kestrel-runtime` for such a container")
        with opened(os.memfd_create("filter", os.MFD_CLOEXEC)) as fd:
            os.write(fd, found.program)
            heard.send({"filter": found.flags}, [fd])
    return plan.build(
        spec,
        Rootfs.from_json(request.rootfs) if request.rootfs is not None else None,
        seccomp=found,
        cgroup_version=hierarchy.version if hierarchy is not None else 2,
        cgroup_hierarchies=hierarchy.hierarchies(resources.limits(request.resources)) if hierarchy is not None else (),
        size=(request.width, request.height),
        sandbox=around.namespaces,
    )
