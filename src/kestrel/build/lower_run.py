"""RUN: what is executed, in which environment, and which mounts it gets."""

import posixpath
from dataclasses import replace

from kestrel.base.errors import Unimplemented
from kestrel.build.graph import Context, Execute, MountInput
from kestrel.build.lower import DEFAULT_PATH, Lowering, clean
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.lexer import opening
from kestrel.dockerfile.mounts import parse_mount

CACHE_SPACE = "BUILDKIT_CACHE_MOUNT_NS"
"""The argument that sets apart the caches of builds which would share them otherwise; docker's name for it."""
SCRIPT_DIRECTORY = "/dev/pipes"
"""Where a here-document that begins with `#!` appears as a file; the place BuildKit uses, which scripts see as $0."""


def lower_run(stage: Lowering, instruction: ins.Run) -> None:
    """RUN: one step."""
    if instruction.security == "insecure":
        raise Unimplemented(
            "RUN --security=insecure is not supported", hint="run the step's work in a container instead"
        )
    if instruction.devices:
        raise Unimplemented("RUN --device is not supported")
    if instruction.network == "host" and stage.network != "host" and not stage.host_network:
        # Whoever asks for the build grants rights, not what is built (CVE-2024-23653).
        raise stage.error(
            instruction,
            "RUN --network=host is not granted",
            hint="build with `--allow network.host` if you trust the Dockerfile",
        )
    argv, script = _command(stage, instruction)
    args = stage.scope.set_args()
    operation = Execute(
        argv=argv,
        env=_environment(stage, args),
        cwd=stage.cwd,
        user=stage.config.user,
        network=stage.network if instruction.network == "default" else instruction.network,
        hosts=stage.hosts,
        hostname=stage.hostname,
        mounts=tuple(_mount(stage, instruction, text) for text in instruction.mounts),
        script=script,
        unkeyed=frozenset(stage.scope.proxies()),
    )
    values = " ".join(f"{name}={value}" for name, value in args.items())
    prefix = f"|{len(args)} {values} " if args else ""
    stage.step(instruction, operation, f"RUN {prefix}{' '.join(argv)}")


def _command(stage: Lowering, instruction: ins.Run) -> tuple[tuple[str, ...], str]:
    """Return the argument vector, and a script for it to run when a here-document is one."""
    command = instruction.command
    if not command.argv:
        raise stage.error(instruction, "RUN needs a command")
    if not command.shell:
        return command.argv, ""
    line = command.line
    if not instruction.heredocs:
        return (*stage.shell, line), ""
    first = instruction.heredocs[0]
    if opening(line, stage.scope.escape) is not None:
        # The here-document is the whole command: a script of its own, or lines for the shell.
        if first.body.startswith("#!"):
            return (posixpath.join(SCRIPT_DIRECTORY, first.name),), first.body
        return (*stage.shell, first.body), ""
    # The shell reads it itself.
    return (*stage.shell, line + "".join(f"\n{h.content}{h.name}" for h in instruction.heredocs)), ""


def _environment(stage: Lowering, args: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what the command sees: ENV, then ARGs, then proxies, and the time files are clamped to.

    SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/) makes compilers and packers write
    the same bytes each time; without it Python's bytecode files would carry times that the layer no longer has.
    """
    env = {"PATH": DEFAULT_PATH, **stage.scope.proxies(), **args, **stage.scope.env}
    env.setdefault("SOURCE_DATE_EPOCH", str(stage.epoch))
    return tuple(env.items())


def _mount(stage: Lowering, instruction: ins.Run, text: str) -> MountInput:
    try:
        mount = parse_mount(text, stage.scope.word)
    except DockerfileError as error:
        raise error.within(stage.source, instruction.node) from None
    if mount.target:
        mount = replace(mount, target=stage.absolute(mount.target))
        if mount.target == "/":
            raise stage.error(instruction, "a mount cannot replace the whole root", hint="choose a directory as target")
    if mount.type == "cache":
        space = stage.scope.given.get(CACHE_SPACE, "")
        mount = replace(mount, id=f"{space}/{mount.id or mount.target}" if space else mount.id or mount.target)
    if mount.type == "bind":
        origin = stage.find(mount.from_) if mount.from_ else Context()
        return MountInput(mount=replace(mount, source=clean("/" + mount.source)), origin=origin)
    if mount.type == "cache" and mount.from_:
        return MountInput(mount=replace(mount, source=clean("/" + mount.source)), origin=stage.find(mount.from_))
    if mount.type == "ssh":
        return MountInput(mount=replace(mount, id=mount.id or "default"))
    return MountInput(mount=mount)
