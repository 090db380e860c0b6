"""`Node`s to instructions: arguments read in each instruction's own form, flags checked and typed.

Every error names the instruction's lines; a mistyped flag or mount key gets the nearest valid one.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace

from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError, suggestion
from kestrel.dockerfile.lexer import openings, words
from kestrel.dockerfile.mounts import parse_mount
from kestrel.dockerfile.nodes import Document, Node, Source
from kestrel.dockerfile.parser import parse, trigger

_BOOLEAN = ("link", "parents", "keep-git-dir", "unpack")
_REPEATED = ("exclude", "mount", "device")
FLAGS: dict[str, tuple[str, ...]] = {
    "ADD": ("checksum", "chmod", "chown", "exclude", "keep-git-dir", "link", "unpack"),
    "COPY": ("chmod", "chown", "exclude", "from", "link", "parents"),
    "FROM": ("platform",),
    "HEALTHCHECK": ("interval", "retries", "start-interval", "start-period", "timeout"),
    "RUN": ("device", "mount", "network", "security"),
}
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
Flags = dict[str, "str | bool | tuple[str, ...]"]


def decode(document: Document) -> ins.Program:
    """Decode a whole file and group it into stages. Raises DockerfileError."""
    global_args: list[ins.Arg] = []
    stages: list[tuple[ins.From, list[ins.Instruction]]] = []
    for node in document.nodes:
        instruction = decode_node(node, document.source, document.escape)
        if isinstance(instruction, ins.From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, ins.Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError.at(
                node,
                f"{node.keyword} before the first FROM",
                source=document.source,
                hint="only ARG may stand there; begin the stage with `FROM <image>`",
            )
    if not stages:
        raise DockerfileError(
            "the file has no FROM",
            source=document.source,
            where=document.nodes[-1].range,
            hint="name a base image: `FROM <image>`, or `FROM scratch` for an empty one",
        )
    return ins.Program(
        global_args=tuple(global_args),
        stages=tuple(
            ins.Stage(index=index, from_=base, instructions=tuple(body)) for index, (base, body) in enumerate(stages)
        ),
        directives=document.directives,
    )


def decode_node(node: Node, source: Source, escape: str = "\\") -> ins.Instruction:
    """Decode one instruction. Raises DockerfileError with its place."""
    return _Decoder(node, source, escape).decode()


def decode_text(text: str, name: str) -> ins.Instruction:
    """Decode an instruction that stands alone, such as an ONBUILD trigger kept in an image called `name`."""
    document = parse(text, name)
    return decode_node(document.nodes[0], document.source, document.escape)


class _Decoder:
    """The state all the readers below share: the node, and how to complain about it."""

    def __init__(self, node: Node, source: Source, escape: str) -> None:
        self.node = node
        self.source = source
        self.escape = escape
        self.rest = node.arguments

    def decode(self) -> ins.Instruction:
        readers: dict[str, Callable[[], ins.Instruction]] = {
            "ADD": self._add,
            "ARG": self._arg,
            "CMD": lambda: ins.Cmd(node=self.node, command=self._command(empty=True)),
            "COPY": self._copy,
            "ENTRYPOINT": lambda: ins.Entrypoint(node=self.node, command=self._command(empty=True)),
            "ENV": lambda: self._pairs(ins.Env),
            "EXPOSE": lambda: ins.Expose(node=self.node, ports=self._several()),
            "FROM": self._from,
            "HEALTHCHECK": self._healthcheck,
            "LABEL": lambda: self._pairs(ins.Label),
            "MAINTAINER": lambda: ins.Maintainer(node=self.node, name=self._one()),
            "ONBUILD": self._onbuild,
            "RUN": self._run,
            "SHELL": self._shell,
            "STOPSIGNAL": lambda: ins.StopSignal(node=self.node, signal=self._one()),
            "USER": lambda: ins.User(node=self.node, user=self._one()),
            "VOLUME": self._volume,
            "WORKDIR": lambda: ins.Workdir(node=self.node, path=self._one()),
        }
        try:
            return readers[self.node.keyword]()
        except DockerfileError as error:
            raise error.within(self.source, self.node) from None

    def error(self, sentence: str, *, offset: int | None = None, hint: str | None = None) -> DockerfileError:
        return DockerfileError.at(self.node, sentence, source=self.source, offset=offset, hint=hint)

    # Flags

    def flags(self) -> Flags:
        """Return the flags by name, checked against what the instruction knows."""
        known = FLAGS.get(self.node.keyword, ())
        found: Flags = {}
        for flag in self.node.flags:
            name, value = flag.name, flag.value
            if name not in known:
                takes = f"it takes {', '.join('--' + k for k in known)}" if known else "it takes none"
                raise self.error(
                    f"unknown flag `--{name}` for {self.node.keyword}",
                    offset=flag.offset,
                    hint=suggestion(f"--{name}", [f"--{k}" for k in known]) or takes,
                )
            if name in _REPEATED and value is not None:
                found[name] = (*self._list(found, name), value)
                continue
            if name in found:
                raise self.error(f"the flag `--{name}` is given twice", offset=flag.offset)
            if name in _BOOLEAN:
                found[name] = self._boolean(name, value, flag.offset)
            elif value is None:
                raise self.error(f"the flag `--{name}` needs a value", offset=flag.offset, hint=f"write `--{name}=...`")
            else:
                found[name] = value
        return found

    def _boolean(self, name: str, value: str | None, offset: int) -> bool:
        if value in (None, "", "true"):
            return True
        if value == "false":
            return False
        raise self.error(f"`--{name}` is true or false, not `{value}`", offset=offset)

    @staticmethod
    def _list(flags: Flags, name: str) -> tuple[str, ...]:
        value = flags.get(name, ())
        return value if isinstance(value, tuple) else ()

    @staticmethod
    def _text(flags: Flags, name: str, default: str = "") -> str:
        value = flags.get(name, default)
        return value if isinstance(value, str) else default

    # Forms of arguments

    def _json(self) -> tuple[str, ...] | None:
        """Read a JSON array of strings; None when the text is not JSON and so means something else."""
        return json_strings(self.rest)

    def _command(self, *, empty: bool = False) -> ins.Command:
        self.flags()
        return self._command_of(empty=empty)

    def _command_of(self, *, empty: bool) -> ins.Command:
        argv = self._json()
        if argv is not None:
            return ins.Command(argv=argv, shell=False)
        if not self.rest and not empty:
            raise self.error(f"{self.node.keyword} needs a command")
        return ins.Command(argv=(self.rest,) if self.rest else (), shell=True)

    def _one(self) -> str:
        self.flags()
        if not self.rest:
            raise self.error(f"{self.node.keyword} needs an argument")
        return self.rest

    def _several(self) -> tuple[str, ...]:
        self.flags()
        if not self.rest:
            raise self.error(f"{self.node.keyword} needs at least one argument")
        return tuple(self.rest.split())

    # Instructions

    def _from(self) -> ins.From:
        flags = self.flags()
        parts = self.rest.split()
        if len(parts) not in (1, 3) or (len(parts) == 3 and parts[1].upper() != "AS"):
            hint = "write `FROM <image>` or `FROM <image> AS <name>`"
            if len(parts) == 3:
                hint = suggestion(parts[1], ["AS"]) or hint
            raise self.error("FROM takes an image and, after AS, a name", hint=hint)
        name = parts[2].lower() if len(parts) == 3 else ""
        if name and not _STAGE_NAME.fullmatch(name):
            raise self.error(
                f"invalid stage name `{parts[2]}`", hint="begin with a letter, go on with letters, digits, - _ ."
            )
        return ins.From(node=self.node, image=parts[0], name=name, platform=self._text(flags, "platform"))

    def _arg(self) -> ins.Arg:
        self.flags()
        pairs: list[tuple[str, str | None]] = []
        for word, _ in words(self.rest, self.escape):
            name, equals, value = word.partition("=")
            if not name:
                raise self.error("the name in ARG cannot be empty")
            pairs.append((name, value if equals else None))
        if not pairs:
            raise self.error("ARG needs at least one name")
        return ins.Arg(node=self.node, pairs=tuple(pairs))

    def _pairs(self, cls: type[ins.Pairs]) -> ins.Pairs:
        self.flags()
        found = words(self.rest, self.escape)
        if not found:
            raise self.error(f"{self.node.keyword} needs at least one name=value")
        if "=" not in found[0][0]:
            return self._legacy_pair(cls)
        pairs = []
        for word, offset in found:
            name, equals, value = word.partition("=")
            if not equals:
                raise self.error(
                    f"`{word}` is not of the form name=value",
                    offset=self.node.arguments_offset + offset,
                    hint="quote a value with spaces in it",
                )
            if not name:
                raise self.error(f"the name in {self.node.keyword} cannot be empty")
            pairs.append((name, value))
        return cls(node=self.node, pairs=tuple(pairs))

    def _legacy_pair(self, cls: type[ins.Pairs]) -> ins.Pairs:
        parts = self.rest.split(None, 1)
        if len(parts) < 2:
            raise self.error(
                f"{self.node.keyword} {parts[0]} has no value", hint=f"write `{self.node.keyword} {parts[0]}=...`"
            )
        return cls(node=self.node, pairs=((parts[0], parts[1]),), legacy=True)

    def _run(self) -> ins.Run:
        flags = self.flags()
        network = self._choice(flags, "network", ("default", "none", "host"))
        security = self._choice(flags, "security", ("sandbox", "insecure"))
        mounts = self._list(flags, "mount")
        for mount in mounts:
            parse_mount(mount)
        return ins.Run(
            node=self.node,
            command=self._command_of(empty=False),
            mounts=mounts,
            network=network,
            security=security,
            devices=self._list(flags, "device"),
            heredocs=self.node.heredocs,
        )

    def _choice(self, flags: Flags, name: str, allowed: tuple[str, ...]) -> str:
        value = self._text(flags, name, allowed[0])
        if value not in allowed:
            raise self.error(
                f"invalid value `{value}` for `--{name}`",
                hint=suggestion(value, allowed) or f"it is one of {', '.join(allowed)}",
            )
        return value

    def _transfer(self) -> tuple[tuple[str, ...], str]:
        """Return the sources (here-documents left out) and the destination."""
        found = self._json()
        if found is None and self.node.heredocs:
            return self._with_heredocs()
        parts = list(found or self.rest.split())
        if len(parts) < 2:
            raise self.error(
                f"{self.node.keyword} needs at least one source and a destination",
                hint=f"write `{self.node.keyword} <source>... <destination>`",
            )
        destination = parts.pop()
        return tuple(parts), destination

    def _with_heredocs(self) -> tuple[tuple[str, ...], str]:
        parts = openings(self.rest, self.escape)
        destination, opened = parts.pop()
        if opened is not None:
            raise self.error("a here-document cannot be the destination")
        return tuple(word for word, opened in parts if opened is None), destination

    def _copy(self) -> ins.Copy:
        flags = self.flags()
        sources, destination = self._transfer()
        return ins.Copy(
            node=self.node,
            sources=sources,
            destination=destination,
            chown=self._text(flags, "chown"),
            chmod=self._text(flags, "chmod"),
            link=bool(flags.get("link")),
            exclude=self._list(flags, "exclude"),
            inline=self.node.heredocs,
            from_=self._from_flag(flags),
            parents=bool(flags.get("parents")),
        )

    def _from_flag(self, flags: Flags) -> str:
        value = self._text(flags, "from")
        if "$" in value:
            raise self.error(
                f"`--from={value}` does not take variables",
                hint="give the stage a name: `FROM $IMAGE AS base`, then `COPY --from=base`",
            )
        return value

    def _add(self) -> ins.Add:
        flags = self.flags()
        sources, destination = self._transfer()
        unpack = flags.get("unpack")
        return ins.Add(
            node=self.node,
            sources=sources,
            destination=destination,
            chown=self._text(flags, "chown"),
            chmod=self._text(flags, "chmod"),
            link=bool(flags.get("link")),
            exclude=self._list(flags, "exclude"),
            inline=self.node.heredocs,
            checksum=self._text(flags, "checksum"),
            keep_git_dir=bool(flags.get("keep-git-dir")),
            unpack=unpack if isinstance(unpack, bool) else None,
        )

    def _shell(self) -> ins.Shell:
        self.flags()
        argv = self._json()
        if not argv:
            raise self.error("SHELL needs a JSON array", hint='write `SHELL ["/bin/sh", "-c"]`')
        return ins.Shell(node=self.node, argv=argv)

    def _volume(self) -> ins.Volume:
        argv = self._json()
        paths = argv if argv is not None else self._several()
        self.flags()
        if not paths or not all(path.strip() for path in paths):
            raise self.error("VOLUME needs at least one path, and none may be empty")
        return ins.Volume(node=self.node, paths=paths)

    def _healthcheck(self) -> ins.Healthcheck:
        flags = self.flags()
        kind, _, rest = self.rest.partition(" ")
        self.rest = rest.strip()
        if kind.upper() == "NONE":
            if self.rest or flags:
                raise self.error("HEALTHCHECK NONE takes nothing else")
            return ins.Healthcheck(node=self.node, command=None)
        if kind.upper() != "CMD":
            raise self.error(
                f"unknown type `{kind}` of HEALTHCHECK",
                hint=suggestion(kind, ("CMD", "NONE")) or "write `CMD` or `NONE`",
            )
        return ins.Healthcheck(
            node=self.node,
            command=self._command_of(empty=False),
            interval=self._duration(flags, "interval"),
            timeout=self._duration(flags, "timeout"),
            start_period=self._duration(flags, "start-period"),
            start_interval=self._duration(flags, "start-interval"),
            retries=self._retries(flags),
        )

    def _duration(self, flags: Flags, name: str) -> float | None:
        text = self._text(flags, name)
        if not text:
            return None
        seconds = parse_duration(text)
        if seconds is None or (seconds and seconds < 1e-3):
            raise self.error(
                f"invalid duration `{text}` for `--{name}`", hint="write 30s, 1m30s or 500ms; at least 1ms"
            )
        return seconds

    def _retries(self, flags: Flags) -> int | None:
        text = self._text(flags, "retries")
        if not text:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self.error(f"invalid number `{text}` for `--retries`")
        return int(text)

    def _onbuild(self) -> ins.Onbuild:
        self.flags()
        inner = trigger(self.node, self.source)
        if inner.keyword in ("ONBUILD", "FROM", "MAINTAINER"):
            raise self.error(f"ONBUILD cannot hold {inner.keyword}")
        body = "".join(f"\n{h.content}{h.name}" for h in self.node.heredocs)
        return ins.Onbuild(
            node=self.node,
            expression=self.rest + body,
            trigger=replace(decode_node(inner, self.source, self.escape), node=self.node),
        )


def json_strings(text: str) -> tuple[str, ...] | None:
    """Read a JSON array of strings; None when the text is not JSON. Raises DockerfileError for other elements."""
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise DockerfileError("a JSON array of arguments holds strings only", hint='write `["program", "argument"]`')
    return tuple(found)


def names_directory(destination: str) -> bool:
    """Tell whether a destination can only be a directory by the way it is written."""
    return destination.endswith(("/", "/.", "/..")) or destination in ("", ".", "..")


def parse_duration(text: str) -> float | None:
    """Read Go's form of a duration (`1m30s`, `500ms`, `0`) as seconds; None when it is not one."""
    if text == "0":
        return 0.0
    total, at = 0.0, 0
    while match := _DURATION.match(text, at):
        total += float(match[1]) * _SECONDS[match[2]]
        at = match.end()
    return total if at and at == len(text) else None
