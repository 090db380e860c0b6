"""What each subcommand of `kestrel-runtime` does with its options. Returns the exit code.

What only some commands need is imported by them: `state` is asked more often than anything else is done.
"""

import os

from kestrel.base import plainjson
from kestrel.base.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from kestrel.runtime import bundles, report, state
from kestrel.runtime.arguments import Options
from kestrel.runtime.bundles import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.runtime.cold import Made, Wishes


def _container(root: str, options: Options) -> Record:
    if not options.words[0]:
        raise InvalidArgument("container id cannot be empty")
    return bundles.load(root, options.words[0])


def _print(value: object) -> None:
    report.output(plainjson.pretty(value) + "\n")


# --- life -----------------------------------------------------------------------------------------------------------


def do_create(root: str, options: Options) -> int:
    """Make a container that waits to be started."""
    from kestrel.runtime import ending

    record, made = _create(root, options)
    try:
        _hand_over(made, options)
    except BaseException:
        ending.delete(root, record, force=True)
        raise
    return 0


def _create(root: str, options: Options, *, foreground: bool = False) -> "tuple[Record, Made]":
    from kestrel.linux import signals
    from kestrel.oci import runtime_shape
    from kestrel.runtime import cold

    signals.signal(signals.SIGTERM, signals.default_int_handler)  # so that what is made is taken back
    pid_file, bundle = options.text("pid-file"), os.path.realpath(options.text("bundle") or ".")
    pid_file = os.path.abspath(pid_file) if pid_file else ""
    options.values["pid-file"] = pid_file
    for name in ("console-socket", "pidfd-socket"):
        if options.text(name):
            options.values[name] = os.path.abspath(options.text(name))
    try:
        os.chdir(bundle)
    except OSError as error:
        raise InvalidArgument(f"bundle {bundle}: {error.strerror}".lower()) from error
    spec = bundles.read_spec(os.path.join(bundle, options.text("config") or bundles.CONFIG), runtime_shape.SPEC)
    process = spec.get("process") or {}
    _check_terminal(options, process, foreground=foreground)
    ours = foreground and bool(process.get("terminal"))
    return cold.create(root, options.words[0], bundle, spec, _wishes(options, terminal=ours))


def _wishes(options: Options, *, terminal: bool) -> "Wishes":
    """Return what the options ask for; with `terminal`, what it has is to be shown on ours."""
    from kestrel.runtime import cold, handed

    size = (0, 0)
    if terminal:
        from kestrel.runtime import console

        size = console.size()
    told = os.environ.get("LISTEN_FDS", "")
    listening = int(told) if told.isascii() and told.isdigit() and len(told) < 6 else 0
    return cold.Wishes(
        cgroups=options.text("cgroup-manager") != "disabled",
        keyring=not options.on("no-new-keyring"),
        listening=listening,
        preserved=handed.check_preserved(listening + options.number("preserve-fds")),
        pivot=not options.on("no-pivot"),
        size=size,
        carried=terminal and not options.text("console-socket"),
    )


def _check_terminal(options: Options, process: "dict[str, Any]", *, foreground: bool) -> None:
    terminal, socket = bool(process.get("terminal")), options.text("console-socket")
    if terminal and not foreground and not socket:
        raise InvalidArgument(
            "cannot allocate tty if runc will detach without setting console socket", hint="use --console-socket"
        )
    if socket and not terminal:
        raise InvalidArgument("cannot use console socket if runc will not detach or allocate tty")


def _hand_over(made: "Made", options: Options) -> None:
    """Give the caller of a process what it asked for; the PID file last, since it means that all is ready."""
    from kestrel.runtime import handed

    report.warnings(made.warnings)
    if made.master >= 0 and options.text("console-socket"):
        handed.send_descriptor(options.text("console-socket"), made.master, b"/dev/ptmx")
    if options.text("pidfd-socket"):
        handed.send_descriptor(options.text("pidfd-socket"), made.pidfd, b"pidfd")
    if options.text("pid-file"):
        handed.write_pid(options.text("pid-file"), made.pid)


def do_start(root: str, options: Options) -> int:
    """Let a created container's program run."""
    from kestrel.runtime import starting

    starting.start(root, _container(root, options))
    return 0


def do_run(root: str, options: Options) -> int:
    """Create and start; in the foreground also wait, and delete."""
    from kestrel.runtime import ending, starting

    detached = options.on("detach")
    record, made = _create(root, options, foreground=not detached)
    try:
        _hand_over(made, options)
        starting.start(root, record)
    except BaseException:
        if os.path.exists(bundles.directory(root, record.id)):
            ending.delete(root, record, force=True)
        raise
    if detached:
        return 0
    code = _wait(made, options)
    if not options.on("keep"):
        report.warnings(ending.delete(root, record, force=True))
    return code


def _wait(made: "Made", options: Options) -> int:
    """Stay until a process has ended; return its exit code."""
    from kestrel.runtime import handed

    handed.forward_signals(made.pid)
    if made.master >= 0 and not options.text("console-socket"):
        from kestrel.runtime import console

        console.follow(made.pidfd, made.master)
    return state.exit_code(os.waitpid(made.pid, 0)[1])


def do_state(root: str, options: Options) -> int:
    """Print a container's state."""
    record = _container(root, options)
    _print(record.report(bundles.status(root, record)))
    return 0


def do_kill(root: str, options: Options) -> int:
    """Send a signal."""
    from kestrel.runtime import ending

    record = _container(root, options)
    name = options.words[1] if len(options.words) > 1 else "SIGTERM"
    ending.kill(root, record, signal_number(name), everyone=options.on("all"))
    return 0


def signal_number(name: str) -> int:
    """Return the number of a signal given as `9`, `KILL` or `SIGKILL`. Raises InvalidArgument."""
    from kestrel.linux import signals

    if name.isdigit() and 0 <= int(name) <= 64:
        return int(name)
    upper = name.upper()
    upper = upper if upper.startswith("SIG") else f"SIG{upper}"
    base, plus, offset = upper.partition("+")
    found = vars(signals).get(base) if base.isalnum() else None  # what has an underscore is not a signal
    if found is not None and (not plus or offset.isdigit()):
        return int(found) + (int(offset) if plus else 0)
    raise InvalidArgument(f"unknown signal {name!r}")


def do_delete(root: str, options: Options) -> int:
    """Remove a container."""
    from kestrel.runtime import ending

    force = options.on("force")
    try:
        record = _container(root, options)
    except NotFound:
        if not force:
            raise
        bundles.forget(root, options.words[0])  # what a creation that was killed has left
        return 0
    report.warnings(ending.delete(root, record, force=force))
    return 0


def do_pause(root: str, options: Options) -> int:
    """Stop all processes of a container where they are."""
    return _freeze(root, options, "pause", frozen=True)


def do_resume(root: str, options: Options) -> int:
    """Let a paused container go on."""
    return _freeze(root, options, "resume", frozen=False)


def _freeze(root: str, options: Options, verb: str, *, frozen: bool) -> int:
    from kestrel.runtime import groups

    record = _container(root, options)
    now = bundles.status(root, record)
    if now not in (state.ALLOWED[verb] if verb == "resume" else (state.RUNNING, state.CREATED)):
        raise FailedPrecondition(f"container not {'running' if frozen else 'paused'}", status=now)
    group = groups.group_of(record)
    if group is None:
        raise FailedPrecondition(f"container {record.id} has no control group and cannot be paused")
    group.freeze(frozen)
    return 0


# --- a further process ----------------------------------------------------------------------------------------------


def do_exec(root: str, options: Options) -> int:
    """Run another program in a running container."""
    from kestrel.linux import signals
    from kestrel.runtime import cold, joining

    record = _container(root, options)
    detached = options.on("detach")
    wanted = joining.wanted(options, bundles.load_config(root, record.id).get("process") or {})
    if options.text("console-socket") and not wanted.get("terminal"):
        raise InvalidArgument("cannot use console socket if runc will not detach or allocate tty")
    if wanted.get("terminal") and detached and not options.text("console-socket"):
        raise InvalidArgument("cannot allocate tty if runc will detach without setting console socket")
    wishes = _wishes(options, terminal=bool(wanted.get("terminal")) and not detached)
    if wishes.size[0]:
        wanted.pop("consoleSize", None)  # what it shows, it shows on ours
    made = cold.execute(
        root,
        record,
        wanted,
        wishes,
        paused=options.on("ignore-paused"),
        below=joining.groups_below(options.all("cgroup")),
    )
    try:
        _hand_over(made, options)
    except BaseException:
        signals.pidfd_send_signal(made.pidfd, signals.SIGKILL)
        os.waitpid(made.pid, 0)
        raise
    return 0 if detached else _wait(made, options)


# --- looking --------------------------------------------------------------------------------------------------------


def do_list(root: str, options: Options) -> int:
    """List the containers of this root."""
    if root != bundles.ROOT and not os.path.isdir(root):
        raise NotFound(f"no such directory: {root}", hint="--root names where containers are kept")
    _check_format(options)
    found = []
    for identifier in bundles.every(root):
        try:
            record = bundles.load(root, identifier)
        except Exception as error:  # noqa: BLE001 - one that cannot be read must not hide the others
            report.warnings([f"{identifier}: {error}"])
            continue
        found.append((record, bundles.status(root, record)))
    if options.on("quiet"):
        report.output("".join(f"{record.id}\n" for record, _ in found))
    elif options.text("format") == "json":
        report.output(plainjson.dumps([record.report(now) for record, now in found]))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        rows += [
            (r.id, str(r.pid if now != state.STOPPED else 0), now, r.bundle, r.created, r.owner) for r, now in found
        ]
        widths = [max(len(row[column]) for row in rows) + 3 for column in range(6)]
        lines = ("".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)
        report.output("".join(f"{line.rstrip()}\n" for line in lines))
    return 0


def _check_format(options: Options) -> None:
    if options.text("format") not in ("", "table", "json"):
        raise InvalidArgument("invalid format option", hint="table or json")


def do_ps(root: str, options: Options) -> int:
    """List the processes of a container, as `ps -ef` shows them or as JSON numbers."""
    from kestrel.runtime import groups

    record = _container(root, options)
    _check_format(options)
    pids = list(groups.processes(record))
    if options.text("format") == "json":
        report.output(plainjson.dumps(pids) + "\n")
        return 0
    import subprocess

    words = ["ps", *(options.words[1:] or ["-ef"])]
    done = subprocess.run(words, check=False, capture_output=True, text=True, errors="surrogateescape")
    if done.returncode:
        cause = done.stderr.strip().partition("\n")[0] or f"exit status {done.returncode}"
        raise InvalidArgument(f"ps: {cause.removeprefix('error: ')}")
    lines = done.stdout.splitlines() or [""]
    head = lines[0].split()
    if "PID" not in head:
        raise InvalidArgument("couldn't find PID field in ps output")
    column = head.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if line.split()[column] in wanted]
    report.output("\n".join([lines[0], *kept]) + "\n")
    return 0


def do_events(root: str, options: Options) -> int:
    """Print a container's use of resources: once with --stats, else every --interval until it has ended, and OOM."""
    from kestrel.runtime import figures

    record = _container(root, options)
    pause = figures.seconds(options.text("interval") or "5s")
    if pause <= 0:
        raise InvalidArgument("duration interval must be greater than 0")
    if bundles.status(root, record) == state.STOPPED:
        raise FailedPrecondition(f"container with id {record.id} is not running")
    for event in [figures.event(record)] if options.on("stats") else figures.follow(record, pause):
        report.output(plainjson.dumps(event) + "\n")
    return 0


def do_update(root: str, options: Options) -> int:
    """Change a container's limits."""
    from kestrel.runtime import figures, groups

    record = _container(root, options)
    now = bundles.status(root, record)
    if now not in state.ALLOWED["update"]:
        raise FailedPrecondition("container not running", status=now)
    group = groups.group_of(record)
    if group is None:
        raise FailedPrecondition(f"container {record.id} has no control group and so no limits")
    wanted = figures.wanted(options)
    groups.change(group, wanted)
    if not {"kernel", "kernelTCP"}.isdisjoint(wanted.get("memory") or {}):
        report.warnings(["limits of kernel memory are ignored: it is counted with the rest"])
    return 0


def do_spec(_root: str, options: Options) -> int:
    """Write a config.json to begin with."""
    from kestrel.runtime import features

    folder = options.text("bundle") or "."
    path = os.path.join(folder, bundles.CONFIG)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise InvalidArgument(f"file {bundles.CONFIG} exists. Remove it first") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(plainjson.pretty(features.example(rootless=options.on("rootless"))) + "\n")
    return 0


def do_features(_root: str, _options: Options) -> int:
    """Print what this runtime can do (runtime-spec features.md)."""
    from kestrel.runtime import features

    _print(features.features())
    return 0


def do_checkpoint(_root: str, _options: Options) -> int:
    """Save a running container to disk (not supported)."""
    raise Unimplemented("checkpoint is not supported: this runtime does not drive CRIU")


def do_restore(_root: str, _options: Options) -> int:
    """Restore a container from a checkpoint (not supported)."""
    raise Unimplemented("restore is not supported: this runtime does not drive CRIU")
