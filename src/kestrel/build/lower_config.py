"""Instructions that only edit the image's configuration: no step, one line of history each."""

import json
import re
import signal

from kestrel.build.lower import Lowering
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import suggestion
from kestrel.oci.config import Healthcheck

_PORT = re.compile(
    r"(?:(?:[\d.]+:|\[[\da-fA-F:]+\]:)?(?:\d+(?:-\d+)?)?:)?"  # of the host: lint complains, and docker leaves it out
    r"(?:(\d+)(?:-(\d+))?)(?:/([a-zA-Z]+))?"
)
_PROTOCOLS = ("tcp", "udp", "sctp")


def lower_arg(stage: Lowering, instruction: ins.Arg) -> None:
    """ARG: a name comes into scope."""
    stage.scope.declare(instruction)
    shown = " ".join(
        f"{n}={stage.scope.args[n]}" if stage.scope.args.get(n) is not None else n
        for n in (stage.scope.word(name) for name, _ in instruction.pairs)
    )
    stage.record(f"ARG {shown}")


def lower_env(stage: Lowering, instruction: ins.Env) -> None:
    """ENV: all values of the line are expanded with what was there before the line."""
    entries = dict(entry.partition("=")[::2] for entry in stage.config.env)
    for name, value in instruction.pairs:
        entries[name] = value
        stage.scope.env[name] = value
    stage.configure(env=tuple(f"{name}={value}" for name, value in entries.items()))
    stage.record("ENV " + " ".join(f"{name}={value}" for name, value in instruction.pairs))


def lower_label(stage: Lowering, instruction: ins.Label) -> None:
    """LABEL: later values replace earlier ones."""
    stage.configure(labels={**stage.config.labels, **dict(instruction.pairs)})
    stage.record("LABEL " + " ".join(f"{name}={value}" for name, value in instruction.pairs))


def lower_maintainer(stage: Lowering, instruction: ins.Maintainer) -> None:
    """MAINTAINER: the author of the image."""
    stage.author = instruction.name
    stage.record(f"MAINTAINER {instruction.name}")


def lower_user(stage: Lowering, instruction: ins.User) -> None:
    """USER: who later RUNs and the container run as."""
    stage.configure(user=instruction.user)
    stage.record(f"USER {instruction.user}")


def lower_cmd(stage: Lowering, instruction: ins.Cmd) -> None:
    """CMD; the shell form runs in the shell in force."""
    argv = command_line(stage, instruction.command)
    stage.configure(cmd=argv, args_escaped=False)
    stage.cmd_set = True
    stage.record(f"CMD {json.dumps(argv, ensure_ascii=False)}")


def lower_entrypoint(stage: Lowering, instruction: ins.Entrypoint) -> None:
    """ENTRYPOINT; a CMD that came with the base image was meant for another one, and goes."""
    argv = command_line(stage, instruction.command)
    stage.configure(entrypoint=argv)
    if not stage.cmd_set:
        stage.configure(cmd=None)
    stage.record(f"ENTRYPOINT {json.dumps(argv, ensure_ascii=False)}")


def command_line(stage: Lowering, command: ins.Command) -> tuple[str, ...]:
    """Return the argument vector of a command."""
    return (*stage.shell, command.line) if command.shell and command.argv else command.argv


def lower_shell(stage: Lowering, instruction: ins.Shell) -> None:
    """SHELL: for the shell forms from here on."""
    stage.configure(shell=instruction.argv)
    stage.record(f"SHELL {json.dumps(instruction.argv, ensure_ascii=False)}")


def lower_volume(stage: Lowering, instruction: ins.Volume) -> None:
    """VOLUME: paths that a container gets as volumes."""
    stage.configure(volumes={**stage.config.volumes, **{path: {} for path in instruction.paths}})
    stage.record(f"VOLUME {json.dumps(instruction.paths, ensure_ascii=False)}")


def lower_expose(stage: Lowering, instruction: ins.Expose) -> None:
    """EXPOSE: ports, ranges written out, TCP unless said otherwise."""
    ports = dict(stage.config.exposed_ports)
    for text in instruction.ports:
        match = _PORT.fullmatch(text)
        protocol = (match[3] or "tcp").lower() if match else ""
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if protocol not in _PROTOCOLS or not first <= last <= 65535:
            hint = suggestion(protocol, _PROTOCOLS) if protocol and protocol not in _PROTOCOLS else None
            raise stage.error(instruction, f"invalid port `{text}`", hint=hint or "write 8080, 8080/udp or 8000-8010")
        ports.update((f"{port}/{protocol}", {}) for port in range(first, last + 1))
    stage.configure(exposed_ports=ports)
    stage.record("EXPOSE " + " ".join(instruction.ports))


def lower_stopsignal(stage: Lowering, instruction: ins.StopSignal) -> None:
    """STOPSIGNAL: a name or a number this system knows."""
    text = instruction.signal
    names = [s.name for s in signal.Signals]
    known = text.isdecimal() and 0 < int(text) <= 64
    if not known:
        full = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
        known = full in names or re.fullmatch(r"SIGRT(MIN(\+\d+)?|MAX(-\d+)?)", full) is not None
    if not known:
        raise stage.error(instruction, f"unknown signal `{text}`", hint=suggestion(text, names))
    stage.configure(stop_signal=text)
    stage.record(f"STOPSIGNAL {text}")


def lower_healthcheck(stage: Lowering, instruction: ins.Healthcheck) -> None:
    """HEALTHCHECK: kept in the form of docker's configuration, times in nanoseconds."""
    if instruction.command is None:
        stage.configure(healthcheck=Healthcheck(test=("NONE",)))
        stage.record("HEALTHCHECK NONE")
        return
    command = instruction.command
    test = ("CMD-SHELL", command.line) if command.shell else ("CMD", *command.argv)

    def nanoseconds(seconds: float | None) -> int:
        return round((seconds or 0) * 1e9)

    stage.configure(
        healthcheck=Healthcheck(
            test=test,
            interval=nanoseconds(instruction.interval),
            timeout=nanoseconds(instruction.timeout),
            start_period=nanoseconds(instruction.start_period),
            start_interval=nanoseconds(instruction.start_interval),
            retries=instruction.retries or 0,
        )
    )
    stage.record(f"HEALTHCHECK {instruction.node.text.split(None, 1)[1]}")


def lower_onbuild(stage: Lowering, instruction: ins.Onbuild) -> None:
    """ONBUILD: kept as text for builds on top of this image."""
    stage.configure(on_build=(*stage.config.on_build, instruction.expression))
    stage.record(f"ONBUILD {instruction.expression}")
