"""`kestrel-runtime`: the OCI runtime as a command, with runc's command line.

podman, containerd and docker call it many times for every container, so it starts lightly: no argparse, and each
subcommand imports what it needs when it runs. Errors go to standard error and, as runc's do, to `--log` as records
whose level is "error"; their sentences are the ones that callers look for ("container does not exist", "container not
running", "executable file not found in $PATH", ...).
"""

import os
import sys

from kestrel.base.errors import InvalidArgument, KestrelError
from kestrel.runtime import report
from kestrel.runtime.arguments import Options, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "kestrel-runtime"
ROOT = "/run/kestrel-runtime"
FAILED = 1
INTERRUPTED = 130  # as a shell says it of SIGINT
MANAGERS = ("cgroupfs", "disabled")

GLOBAL = {
    "root": "text",
    "log": "text",
    "log-format": "text",
    "log-level": "text",
    "debug": "switch",
    "systemd-cgroup": "switch",
    "cgroup-manager": "text",
    "rootless": "text",
    "criu": "text",
    "version,v": "switch",
    "help,h": "switch",
}

_MAKING = {
    "bundle,b": "text",
    "config,f": "text",
    "console-socket": "text",
    "pidfd-socket": "text",
    "pid-file": "text",
    "no-pivot": "switch",
    "no-new-keyring": "switch",
    "preserve-fds": "number",
}

COMMANDS: dict[str, dict[str, str]] = {
    "create": _MAKING,
    "run": {**_MAKING, "detach,d": "switch", "keep": "switch", "no-subreaper": "switch"},
    "start": {},
    "state": {},
    "kill": {"all,a": "switch"},
    "delete": {"force,f": "switch"},
    "exec": {
        "console-socket": "text",
        "pidfd-socket": "text",
        "pid-file": "text",
        "cwd": "text",
        "env,e": "list",
        "tty,t": "switch",
        "user,u": "text",
        "additional-gids,g": "list",
        "process,p": "text",
        "detach,d": "switch",
        "cap,c": "list",
        "no-new-privs": "switch",
        "process-label": "text",
        "apparmor": "text",
        "preserve-fds": "number",
        "cgroup": "list",
        "ignore-paused": "switch",
    },
    "list": {"format,f": "text", "quiet,q": "switch"},
    "ps": {"format,f": "text"},
    "pause": {},
    "resume": {},
    "update": {
        "resources,r": "text",
        "blkio-weight": "text",
        "cpu-period": "text",
        "cpu-quota": "text",
        "cpu-burst": "text",
        "cpu-rt-period": "text",
        "cpu-rt-runtime": "text",
        "cpu-idle": "text",
        "cpu-share": "text",
        "cpuset-cpus": "text",
        "cpuset-mems": "text",
        "memory": "text",
        "memory-reservation": "text",
        "memory-swap": "text",
        "kernel-memory": "text",
        "kernel-memory-tcp": "text",
        "pids-limit": "text",
    },
    "spec": {"bundle,b": "text", "rootless": "switch"},
    "features": {},
    "events": {"interval": "text", "stats": "switch"},
    "checkpoint": {},
    "restore": {},
}
"""Every command and its options."""

_NAMED = dict.fromkeys(("create", "run", "start", "state", "delete", "pause", "resume", "update", "events"), (1, 1))
WORDS = {
    **_NAMED,
    **dict.fromkeys(("list", "spec", "features"), (0, 0)),
    "kill": (1, 2),
    "exec": (1, None),
    "ps": (1, None),
}
"""How many words a command takes besides its options, at least and at most."""

_MIXED = frozenset(("state", "kill", "delete", "list", "pause", "resume", "update", "events", "start", "create"))


def main() -> int:
    """Run the command line of this process; what makes a process of a container must be sealed by now (`main.py`)."""
    name = ""
    try:
        before = parse(sys.argv[1:], GLOBAL)
        name = before.words[0] if before.words else ""
        debug = before.on("debug") or before.text("log-level") == "debug"
        report.configure(before.text("log"), before.text("log-format"), debug=debug)
        code = _dispatch(before, name)
    except (KestrelError, OSError) as error:
        message = error.message if isinstance(error, KestrelError) else _explained(error)
        told = f"{name} failed: {message}" if "pid-file" in COMMANDS.get(name, ()) else message
        report.error(told, error.hint if isinstance(error, KestrelError) else None)
        code = 255 if name == "exec" else FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    return code


def _explained(error: OSError) -> str:
    place = f" {error.filename}:" if error.filename else ""
    return (
        f"{place} {error.strerror or error}".strip().lower()
        if not error.filename
        else f"{place} {error.strerror}".strip()
    )


def _dispatch(before: Options, name: str) -> int:
    if before.on("version"):
        return _version()
    if not name or name == "help" or before.on("help"):
        return _help()
    if name not in COMMANDS:
        raise InvalidArgument(f"No help topic for '{name}'", hint=f"{_name()} --help lists the commands")
    manager = "systemd" if before.on("systemd-cgroup") else before.text("cgroup-manager") or MANAGERS[0]
    if manager not in MANAGERS:
        raise InvalidArgument(
            f"the {manager} cgroup driver is not supported",
            hint="use the cgroupfs driver (podman: --cgroup-manager cgroupfs)",
        )
    after = parse(before.words[1:], {**COMMANDS[name], "help,h": "switch"}, mixed=name in _MIXED)
    if after.on("help"):
        return _help(name)
    _check_words(name, len(after.words))
    after.values["cgroup-manager"] = manager
    from kestrel.runtime import verbs

    verb: Callable[[str, Options], int] = getattr(verbs, f"do_{name}")
    return verb(os.path.abspath(before.text("root") or ROOT), after)


def _check_words(name: str, count: int) -> None:
    least, most = WORDS.get(name, (0, None))
    if count < least or (most is not None and count > most):
        wanted = "exactly" if least == most else "a minimum of" if count < least else "a maximum of"
        number = least if count < least else most
        raise InvalidArgument(f'"{name}" requires {wanted} {number} argument(s)')


# --- words to people ------------------------------------------------------------------------------------------------


def _name() -> str:
    """Return what we were called: callers that look for `runc version` may install us under that name."""
    return NAME if sys.argv[0] == "-c" else os.path.basename(sys.argv[0])


def _version() -> int:
    from kestrel.oci.runtime_version import VERSION

    report.output(f"{_name()} version 0.1.0\ncommit: v0.1.0\nspec: {VERSION}\n")
    return 0


def _help(command: str = "") -> int:
    from kestrel.runtime import verbs

    does = {name: getattr(verbs, f"do_{name}").__doc__.partition("\n")[0] for name in COMMANDS}
    title = f"{_name()} {command} - {does[command]}" if command else f"{_name()} - Open Container Initiative runtime"
    lines = ["NAME:", f"   {title}", "", "USAGE:"]
    lines += [f"   {_name()} [global options] {command or 'COMMAND'} [options] [arguments]", ""]
    if not command:
        lines += ["COMMANDS:", *(f"   {name:12}{sentence}" for name, sentence in does.items()), ""]
    lines.append("OPTIONS:")
    for full, kind in (COMMANDS[command] if command else GLOBAL).items():
        names = ", ".join(f"-{alias}" if len(alias) == 1 else f"--{alias}" for alias in full.split(","))
        lines.append(f"   {names}{'' if kind == 'switch' else ' ' + kind.upper()}")
    report.output("\n".join(lines) + "\n")
    return 0
