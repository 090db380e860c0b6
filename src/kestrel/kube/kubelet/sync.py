"""Desired minus actual: what to do for one pod now; pure.

The worker shows a `View`: the Pod, what this host has of it, what was tried before, which actions are under way. The
answer is a `Plan`: actions that may all begin at once, and the moment at which looking again is worth while. Nothing
in a plan is an order to wait: an action that needs another one's result appears once that result is there, so image
pulls, volumes and the sandbox go side by side, and a daemon that starts again simply looks.

Order of a pod's life: init containers one after the other (a sidecar counts as done when it has started), then all
app containers; ephemeral containers, each once, as soon as there is a sandbox; at the end app containers first, then
sidecars, the last started first, then the sandbox.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.backoff import Failure, RestartBackoff
from kestrel.pods.model import ImageInfo, PodContainer, PodRecord

EVICTION_GRACE = 1.0
"""Seconds the containers of an evicted pod have to end, whatever the pod asks for."""
LEAST_GRACE = 2.0
"""Seconds a container is given between the stop signal and SIGKILL when a hook has used up the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What probes say of one running container; without a probe the happy value stands."""

    started: bool = True
    ready: bool = True
    failed: str = ""
    """`liveness` or `startup` when that probe says the container must be restarted."""
    grace: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMemory:
    """What the worker remembers of one container between looks."""

    image: ImageInfo | None = None
    image_failure: Failure | None = None
    failure: Failure | None = None
    restart: RestartBackoff = field(default_factory=RestartBackoff)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A phase that does not follow from the containers' ends."""

    phase: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a decision rests on. `gone` says that the API has no such pod any more; times are epoch seconds."""

    pod: JSONObject
    record: PodRecord
    now: float
    memory: Mapping[str, ContainerMemory] = field(default_factory=dict)
    health: Mapping[str, Health] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    volumes_ready: bool = False
    volumes_failure: Failure | None = None
    sandbox_failure: Failure | None = None
    gone: bool = False
    deleted_at: float | None = None
    """When the pod's deletion was first seen here; its stamp counts whole seconds only."""
    evicted: Outcome | None = None
    """Set when the node has decided that the pod must go."""
    messages: Mapping[str, str] = field(default_factory=dict)
    """Last words of ended containers, by id."""

    def of(self, name: str) -> ContainerMemory:
        """Return what is remembered of a container."""
        return self.memory.get(name, _NOTHING)

    def healthy(self, container: PodContainer) -> Health:
        """Return what probes say of a container."""
        return self.health.get(container.id, _HAPPY)


_NOTHING = ContainerMemory()
_HAPPY = Health()


@dataclass(frozen=True, slots=True)
class MountVolumes:
    """Make the pod's volumes ready."""

    key: str = "volumes"


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Make a sandbox; `attempt` counts them from 0."""

    attempt: int
    key: str = "sandbox"


@dataclass(frozen=True, slots=True)
class EnsureImage:
    """Have the container's image here, as its pull policy says."""

    container: str

    @property
    def key(self) -> str:
        """One at a time for each container."""
        return f"image:{self.container}"


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Create and start a container, then run its postStart hook."""

    container: str
    attempt: int
    sandbox: str
    image: ImageInfo

    @property
    def key(self) -> str:
        """One at a time for each container."""
        return f"start:{self.container}"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Run the preStop hook and end a container. `deadline` is when it is killed; `why` is for its event."""

    id: str
    container: str
    deadline: float
    why: str = ""

    @property
    def key(self) -> str:
        """One at a time for each start of a container."""
        return f"stop:{self.id}"


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """End a sandbox."""

    id: str

    @property
    def key(self) -> str:
        """One at a time."""
        return "sandbox"


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a container of which nobody asks any more, or a sandbox that ended and has no container left."""

    id: str
    what: str = "container"

    @property
    def key(self) -> str:
        """One at a time for each thing."""
        return f"remove:{self.id}"


@dataclass(frozen=True, slots=True)
class Finalize:
    """Everything has ended and the pod is to go: write the last status, clean up, let the API forget it."""

    key: str = "finalize"


Action = MountVolumes | RunSandbox | EnsureImage | StartContainer | StopContainer | StopSandbox | Remove | Finalize


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, and when to look again even if nothing happens (None: only when something does)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    outcome: Outcome | None = None
    ending: bool = False


def plan(view: View) -> Plan:
    """Decide what to do for one pod. Actions whose key is in `view.busy` are left out, except a hastened stop."""
    deadline = pods.deletion_deadline(view.pod, view.deleted_at)
    if view.gone:
        return _end(view, deadline=min(deadline or view.now, view.now), leave=True)
    if deadline is not None:
        return _end(view, deadline=deadline, leave=True)
    if pods.phase(view.pod) in pods.TERMINAL:
        return _end(view, deadline=view.now + pods.grace(view.pod))
    expires = pods.active_deadline(view.pod)
    if expires is not None and view.now >= expires:
        outcome = Outcome(
            phase="Failed",
            reason="DeadlineExceeded",
            message="Pod was active on the node longer than the specified deadline",
        )
        return _end(view, deadline=expires + pods.grace(view.pod), outcome=outcome)
    if view.evicted is not None:
        return _end(view, deadline=view.now + EVICTION_GRACE, outcome=view.evicted)
    if _finished(view):
        return _end(view, deadline=view.now + pods.grace(view.pod), outcome=_lost(view))
    return _run(view, expires)


def finished(view: View) -> bool:
    """Whether nothing of the pod is to run any more."""
    return pods.phase(view.pod) in pods.TERMINAL or _finished(view)


def initialized(view: View) -> bool:
    """Whether every init container has done its part: ended well, or for a sidecar, started."""
    begun = _apps_begun(view)
    for spec in pods.inits(view.pod):
        latest = view.record.newest(spec["name"])
        if latest is None:
            return False
        if pods.is_sidecar(spec):
            up = latest.running and view.healthy(latest).started and f"start:{spec['name']}" not in view.busy
            if not (up or begun):
                return False
        elif not (begun or (latest.exited and latest.exit_code == 0)):
            return False
    return True


def restarts(policy: str, ended: PodContainer) -> bool:
    """Whether a container that ended like this is started again."""
    return policy == pods.ALWAYS or (policy == pods.ON_FAILURE and ended.exit_code != 0)


def _finished(view: View) -> bool:
    policy = pods.restart_policy(view.pod)
    if _lost(view) is not None or _init_failed(view):
        return True
    newest = [view.record.newest(spec["name"]) for spec in pods.containers(view.pod)]
    return all(c is not None and c.exited and not restarts(policy, c) for c in newest)


def _init_failed(view: View) -> bool:
    """Whether an init container failed in a pod that is never restarted."""
    if pods.restart_policy(view.pod) != pods.NEVER:
        return False
    ended = [view.record.newest(s["name"]) for s in pods.inits(view.pod) if not pods.is_sidecar(s)]
    return any(c is not None and c.exited and c.exit_code != 0 for c in ended)


def _lost(view: View) -> Outcome | None:
    """The fate of a pod that is never restarted and has lost its sandbox before all its containers had run."""
    record = view.record
    if pods.restart_policy(view.pod) != pods.NEVER or record.sandbox or not record.sandboxes:
        return None
    names = pods.names(pods.containers(view.pod))
    if "sandbox" in view.busy or not record.containers or all(record.newest(name) for name in names):
        return None
    why = record.sandboxes[0].reason or "it was stopped"
    return Outcome(phase="Failed", reason="SandboxLost", message=f"the pod's sandbox is gone: {why}")


def _run(view: View, expires: float | None) -> Plan:
    steps = _Steps(view)
    _next_containers(view, steps)
    if view.record.sandbox is not None:
        for spec in pods.ephemerals(view.pod):
            newest = view.record.newest(spec["name"])
            if newest is None or not newest.running:
                _bring_up(view, steps, spec, newest, pods.NEVER)
    if not view.volumes_ready:  # also of a pod that a new daemon finds running: what they show may have changed
        steps.retry("volumes", view.volumes_failure, MountVolumes())
    if steps.wanted and view.record.sandbox is None:
        attempt = view.record.sandboxes[0].attempt + 1 if view.record.sandboxes else 0
        steps.retry("sandbox", view.sandbox_failure, RunSandbox(attempt))
    for action in _unhealthy(view):
        steps.do(action)
    for action in _rubbish(view):
        steps.do(action)
    steps.wake(expires)
    return Plan(actions=tuple(steps.actions), wake_at=steps.wake_at)


class _Steps:
    """Collects actions that are not under way yet, and the earliest moment to look again."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.actions: list[Action] = []
        self.wake_at: float | None = None
        self.wanted = False

    def do(self, action: Action) -> None:
        if action.key not in self.view.busy:
            self.actions.append(action)

    def wake(self, moment: float | None) -> None:
        if moment is not None and moment > self.view.now:
            self.wake_at = moment if self.wake_at is None else min(self.wake_at, moment)

    def retry(self, key: str, failure: Failure | None, action: Action) -> None:
        """Do it now, or when its last failure is long enough ago."""
        if key in self.view.busy:
            return
        if failure is not None and self.view.now < failure.retry:
            self.wake(failure.retry)
            if failure.later:
                self.wake(failure.later_at)
            return
        self.do(action)


def _next_containers(view: View, steps: _Steps) -> None:
    """Add what brings the next containers up: the first init container that is not done, or all app containers."""
    done = True
    begun = _apps_begun(view)
    for spec in pods.inits(view.pod):
        current = _current(view, spec)
        running = current is not None and current.running
        if pods.is_sidecar(spec):
            if not running:
                _bring_up(view, steps, spec, current, pods.ALWAYS)
            up = running and _started(view, current) and f"start:{spec['name']}" not in view.busy
            done = up or begun
        elif not begun and not (current is not None and current.exited and current.exit_code == 0):
            if not running:
                _bring_up(view, steps, spec, current, pods.ON_FAILURE)
            done = False
        if not done:
            return
    for spec in pods.containers(view.pod):
        newest = view.record.newest(spec["name"])
        if newest is None or not newest.running:
            _bring_up(view, steps, spec, newest, pods.restart_policy(view.pod))


def _started(view: View, container: PodContainer | None) -> bool:
    return container is not None and view.healthy(container).started


def _apps_begun(view: View) -> bool:
    """Whether an app container was created in the present sandbox: then the init containers are done."""
    sandbox = view.record.sandbox
    names = pods.names(pods.containers(view.pod))
    return sandbox is not None and any(c.sandbox == sandbox.id and c.name in names for c in view.record.containers)


def _current(view: View, spec: JSONObject) -> PodContainer | None:
    """The container's latest start in the present sandbox: in a new sandbox initialisation begins anew."""
    sandbox = view.record.sandbox
    found = view.record.newest(spec["name"])
    return found if found is not None and sandbox is not None and found.sandbox == sandbox.id else None


def _bring_up(view: View, steps: _Steps, spec: JSONObject, last: PodContainer | None, policy: str) -> None:
    """Add the next step towards a running container, unless it has ended for good."""
    name = spec["name"]
    if f"start:{name}" in view.busy:
        steps.wanted = True
        return
    if last is not None and not last.exited:
        # Created and never started: a daemon was killed in between. It is made again, as the same attempt.
        steps.do(Remove(last.id))
        steps.wanted = True
        return
    if last is not None and not restarts(policy, last):
        return
    steps.wanted = True
    memory = view.of(name)
    ended = view.record.newest(name)
    if ended is not None and ended.exited:
        due = memory.restart.due(ended_at(ended))
        if view.now < due:
            steps.wake(due)
            return
    if memory.image is None:
        steps.retry(f"image:{name}", memory.image_failure, EnsureImage(name))
        return
    sandbox = view.record.sandbox
    if sandbox is None or "sandbox" in view.busy or not view.volumes_ready:
        return
    attempt = ended.attempt + 1 if ended is not None else 0
    steps.retry(f"start:{name}", memory.failure, StartContainer(name, attempt, sandbox.id, memory.image))


def ended_at(container: PodContainer) -> float:
    """Return when a container ended."""
    return (container.finished or container.created).timestamp()


def _unhealthy(view: View) -> list[Action]:
    stops: list[Action] = []
    for container in view.record.containers:
        health = view.healthy(container)
        if container.running and health.failed:
            grace = pods.grace(view.pod) if health.grace is None else health.grace
            why = f"failed {health.failed} probe, will be restarted"
            stops.append(StopContainer(container.id, container.name, view.now + grace, why))
    return stops


def _rubbish(view: View) -> list[Action]:
    """Ended starts beyond the newest and the one before it, and ended sandboxes without containers."""
    found: list[Action] = []
    removed: set[str] = set()
    for name in {container.name for container in view.record.containers}:
        for old in view.record.attempts(name)[2:]:
            if not old.running:
                found.append(Remove(old.id))
                removed.add(old.id)
    left = {container.sandbox for container in view.record.containers if container.id not in removed}
    ended = [s for s in view.record.sandboxes[1:] if not s.ready and s.id not in left]
    return [*found, *(Remove(sandbox.id, "sandbox") for sandbox in ended)]


def _end(view: View, *, deadline: float, leave: bool = False, outcome: Outcome | None = None) -> Plan:
    """Stop what runs in the right order; then the sandbox; then, if the pod is to `leave`, everything else."""
    stops = _stops(view, deadline)
    if stops:
        known = tuple(stop for stop in stops if stop.key not in view.busy or leave)
        return Plan(actions=known, outcome=outcome, ending=True)
    if view.busy - {"finalize"} and leave:
        return Plan(outcome=outcome, ending=True)  # what is under way ends first; each end wakes the worker
    ready = [sandbox for sandbox in view.record.sandboxes if sandbox.ready]
    if ready and not leave:
        actions: tuple[Action, ...] = () if view.busy else (StopSandbox(ready[0].id),)
        return Plan(actions=actions, outcome=outcome, ending=True)
    if leave and "finalize" not in view.busy:
        return Plan(actions=(Finalize(),), outcome=outcome, ending=True)
    return Plan(outcome=outcome, ending=True)


def _stops(view: View, deadline: float) -> list[StopContainer]:
    running = [container for container in view.record.containers if container.running]
    order = pods.names(pods.sidecars(view.pod))
    apps = [container for container in running if container.name not in order]
    if not apps and running:
        last = max(running, key=lambda container: order.index(container.name))
        apps = [last]
    return [StopContainer(container.id, container.name, deadline) for container in apps]
