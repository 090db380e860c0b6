"""The rules that `docker build --check` has, under its names and in its words, so that skipping works in both."""

import json
import posixpath
import re
from collections.abc import Iterable

from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError
from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.lint import Base, Subject
from kestrel.dockerfile.lint_catalogue import (
    CONSISTENT_CASING,
    CONSTANT_PLATFORM,
    COPY_IGNORED,
    DEFINITION_DESCRIPTION,
    DUPLICATE_STAGE_NAME,
    EXPOSE_CASING,
    EXPOSE_FORMAT,
    FROM_AS_CASING,
    INVALID_DEFAULT_ARG,
    INVALID_PLATFORM,
    JSON_ARGS,
    LEGACY_KEY_VALUE,
    MAINTAINER_DEPRECATED,
    MULTIPLE_INSTRUCTIONS,
    NO_EMPTY_CONTINUATION,
    REDUNDANT_PLATFORM,
    RESERVED_STAGE_NAME,
    SECRETS_USED,
    STAGE_NAME_CASING,
    UNDEFINED_ARG_IN_FROM,
    UNDEFINED_VAR,
    WORKDIR_RELATIVE,
)
from kestrel.dockerfile.lint_values import literal, modern
from kestrel.dockerfile.nodes import Node

_SHELL_WORDS = frozenset(
    """
    . : alias autoload bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc
    declare dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts
    hash help history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return
    select set shift shopt source suspend test then time times trap true type typeset ulimit umask unalias unset until
    wait while
    """.split()
)
"""What a shell carries out itself (POSIX 2.4, 2.14 and `help` of bash, dash and busybox): no such program need be."""
_JSON_ADVICE = 'write ["program", "argument"]; what needs a shell begins with "/bin/sh", "-c"'
_AUTHORS = "org.opencontainers.image.authors"
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_HOST = r"(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9.-]+(?=:\d+/)|\[[0-9a-fA-F:]+\])(?::\d+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::\w[\w.-]{{0,127}})?(?:@[a-z0-9]+:[0-9a-f]{{32,}})?", re.ASCII
)
_ARCHITECTURES = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")


# While the file is read


def from_lines(subject: Subject) -> None:
    """Casing of stage names and of AS."""
    for stage in subject.program.stages:
        node = stage.from_.node
        parts = node.arguments.split()
        if len(parts) != 3:
            continue
        if parts[2] != parts[2].lower():
            subject.report(
                STAGE_NAME_CASING, node, f"Stage name '{parts[2]}' should be lowercase",
                fix=_with_word(node, 2, parts[2].lower()), advice=f"call it {parts[2].lower()}",
            )  # fmt: skip
        same = str.lower if node.written == node.written.lower() else str.upper
        if _one_case(node.written) and parts[1] != same(parts[1]):
            subject.report(
                FROM_AS_CASING, node, f"'{parts[1]}' and '{node.written}' keywords' casing do not match",
                fix=_with_word(node, 1, same(parts[1])), advice=f"write {same(parts[1])}",
            )  # fmt: skip


def maintainers(subject: Subject) -> None:
    """MAINTAINER at all."""
    for stage, instruction in _all(subject):
        if isinstance(instruction, ins.Maintainer):
            # A label that is there already would be overwritten.
            named = any(isinstance(each, ins.Label) and _AUTHORS in dict(each.pairs) for each in stage.instructions)
            label = f"LABEL {_AUTHORS}={literal(instruction.name, subject.document.escape)}"
            subject.report(
                MAINTAINER_DEPRECATED, instruction.node, "Maintainer instruction is deprecated in favor of using label",
                fix="" if named else label, advice=label,
            )  # fmt: skip


def definition_comments(subject: Subject) -> None:
    """Comments above ARG and FROM that look like descriptions of something else."""
    for arg in subject.program.global_args:
        _described(subject, arg.node, [name for name, _ in arg.pairs])
    for stage in subject.program.stages:
        if stage.name:
            _described(subject, stage.from_.node, [stage.name])
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Arg):
                _described(subject, instruction.node, [name for name, _ in instruction.pairs])


def _described(subject: Subject, node: Node, names: list[str]) -> None:
    if not node.comments or not node.comments[-1] or node.comments[-1].split(" ")[0] in names:
        return
    if re.match(r"(check|escape|syntax)\s*=", node.comments[-1], re.IGNORECASE):
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    detail = f"Comment for {node.keyword} should follow the format: `# {example} <description>`"
    subject.report(DEFINITION_DESCRIPTION, node, detail)


# The file as a whole


def empty_continuations(subject: Subject) -> None:
    """Blank lines inside a continuation."""
    for node in subject.document.nodes:
        if node.empty_continuations:
            subject.report(
                NO_EMPTY_CONTINUATION, node, "Empty continuation line", line=node.range.last,
                advice="take the blank lines out",
            )  # fmt: skip


def stage_names(subject: Subject) -> None:
    """Names that mean something else, or the same thing twice."""
    seen: set[str] = set()
    for stage in subject.program.stages:
        if stage.name in ("scratch", "context"):
            detail = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            subject.report(RESERVED_STAGE_NAME, stage.from_.node, detail)
        if stage.name and stage.name in seen:
            detail = f'Duplicate stage name "{stage.name}", stage names should be unique'
            subject.report(DUPLICATE_STAGE_NAME, stage.from_.node, detail)
        seen.add(stage.name)


def casing(subject: Subject) -> None:
    """Keywords in the case that most of them have; mixed case never fits."""
    nodes = [n for s in subject.program.stages for n in (s.from_.node, *(i.node for i in s.instructions))]
    plain = [node.written for node in nodes if _one_case(node.written)]
    lower = sum(word == word.lower() for word in plain)
    change, word = (str.lower, "lowercase") if lower > len(plain) - lower else (str.upper, "uppercase")
    for node in nodes:
        if node.written != change(node.written):
            detail = f"Command '{node.written}' should match the case of the command majority ({word})"
            fix = change(node.written) + node.text.removeprefix(node.written)
            subject.report(CONSISTENT_CASING, node, detail, fix=fix)


def default_arguments(subject: Subject) -> None:
    """Base names that are nothing when no argument is given."""
    values = subject.global_values(given=False)
    for stage in subject.program.stages:
        try:
            name = Expander(subject.document.escape).word(stage.from_.image, values)
        except DockerfileError:
            return
        if not _IMAGE.fullmatch(name):
            detail = f"Default value for ARG {stage.from_.image} results in empty or invalid base image name"
            subject.report(INVALID_DEFAULT_ARG, stage.from_.node, detail, advice="give the ARG a default")


def undeclared_in_from(subject: Subject) -> None:
    """Variables of FROM that no ARG before it declares."""
    declared = [name for arg in subject.program.global_args for name, _ in arg.pairs]
    known = [*declared, *subject.platform_args]
    for stage in subject.program.stages:
        for text in (stage.from_.image, stage.from_.platform):
            for name in _unset(subject, text, subject.global_values()):
                if name not in known:
                    close = closest(name, known)
                    hint = f" (did you mean {close}?)" if close else ""
                    subject.report(
                        UNDEFINED_ARG_IN_FROM, stage.from_.node, f"FROM argument '{name}' is not declared{hint}"
                    )


def platforms(subject: Subject) -> None:
    """`--platform` with a constant, with what is the default anyway, or an image of another one."""
    values = subject.global_values()
    for stage in subject.selected():
        node, written = stage.from_.node, stage.from_.platform
        base = subject.bases.get(subject.image(stage), Base())
        if base.platform != base.expected:
            detail = (
                f'Base image {subject.image(stage)} was pulled with platform "{base.platform}", '
                f'expected "{base.expected}" for current build'
            )
            subject.report(INVALID_PLATFORM, node, detail)
        if not written:
            continue
        try:
            made = Expander(subject.document.escape).expand(written, values)
        except DockerfileError:
            continue  # it is an error, and said as such
        if made.used == {"TARGETPLATFORM"} and not made.unset and made.words[0] == values.get("TARGETPLATFORM"):
            detail = f"Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            default = subject.platform_args.get("TARGETPLATFORM") == made.words[0]
            fix = f"{node.written} {node.arguments}" if default else ""
            subject.report(REDUNDANT_PLATFORM, node, detail, fix=fix, advice="leave --platform out")
        if not made.used and not made.unset and not made.defaulted:
            _constant(subject, stage, made.words[0])


def _constant(subject: Subject, stage: ins.Stage, platform: str) -> None:
    system, _, architecture = platform.partition("/")
    architecture = architecture.partition("/")[0]
    if not system or any(part and part in stage.name for part in (system, architecture)):
        return
    if system in _ARCHITECTURES and system in stage.name:
        return
    detail = f'FROM --platform flag should not use constant value "{platform}"'
    subject.report(CONSTANT_PLATFORM, stage.from_.node, detail)


# Instruction by instruction


def key_values(subject: Subject) -> None:
    """`ENV name value` without an equals sign, and names that say secret."""
    for stage in subject.selected():
        for instruction in stage.instructions:
            node = instruction.node
            if isinstance(instruction, ins.Pairs) and instruction.legacy:
                word = node.written
                detail = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
                advice = f'write {word} NAME="VALUE"'
                subject.report(LEGACY_KEY_VALUE, node, detail, fix=modern(subject, instruction), advice=advice)
            if isinstance(instruction, ins.Env | ins.Arg):
                for name, _ in instruction.pairs:
                    if _SECRET.search(name) and not _NO_SECRET.search(name):
                        detail = f'Do not use ARG or ENV instructions for sensitive data ({node.keyword} "{name}")'
                        advice = f"RUN --mount=type=secret,id={name.lower()} and --secret id={name.lower()},src=FILE"
                        subject.report(SECRETS_USED, node, detail, advice=advice)


def repeated(subject: Subject) -> None:
    """CMD, ENTRYPOINT and HEALTHCHECK given twice in a stage: all but the last do nothing."""
    for stage in subject.selected():
        seen: dict[type[ins.Instruction], Node] = {}
        for instruction in stage.instructions:
            if not isinstance(instruction, ins.Cmd | ins.Entrypoint | ins.Healthcheck):
                continue
            before = seen.get(type(instruction))
            if before is not None:
                detail = (
                    f"Multiple {instruction.node.keyword} instructions should not be used in the same stage because "
                    "only the last one will be used"
                )
                subject.report(MULTIPLE_INSTRUCTIONS, before, detail, advice="take this one out")
            seen[type(instruction)] = instruction.node


def shell_forms(subject: Subject) -> None:
    """CMD and ENTRYPOINT as a line for a shell that nobody chose."""
    wanted = {stage.index for stage in subject.selected()}
    # With an ENTRYPOINT, the words of a CMD are arguments: there is more to it than who starts the program.
    alone = not any(isinstance(each, ins.Entrypoint) for _, each in _all(subject))
    chosen: dict[int, bool] = {}  # by stage, at its end
    for stage in subject.program.stages:
        parent = subject.parent(stage)
        known = bool(subject.bases.get(subject.image(stage), Base()).shell) if parent is None else chosen[parent.index]
        if stage.index in wanted:
            _shell_forms(subject, stage, chosen=known, alone=alone)
        chosen[stage.index] = known or any(isinstance(i, ins.Shell) for i in stage.instructions)


def _shell_forms(subject: Subject, stage: ins.Stage, *, chosen: bool, alone: bool) -> None:
    for instruction in stage.instructions:
        if isinstance(instruction, ins.Shell):
            chosen = True
        elif isinstance(instruction, ins.Cmd | ins.Entrypoint) and instruction.command.shell and not chosen:
            word = instruction.node.written
            detail = f"JSON arguments recommended for {word} to prevent unintended behavior related to OS signals"
            argv = _program(instruction.command.line) if alone else []
            fix = f"{word} {json.dumps(argv, ensure_ascii=False)}" if argv else ""
            subject.report(JSON_ARGS, instruction.node, detail, fix=fix, advice=_JSON_ADVICE)


def working_directories(subject: Subject) -> None:
    """A relative WORKDIR with no absolute one before it in the file."""
    wanted = {stage.index for stage in subject.selected()}
    anchored: dict[int, bool] = {}  # by stage, at its end
    for stage in subject.program.stages:
        parent = subject.parent(stage)
        known = parent is not None and anchored[parent.index]
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Workdir):
                if not known and stage.index in wanted and not instruction.path.startswith(("/", "$")):
                    detail = (
                        f'Relative workdir "{instruction.path}" can have unexpected results if the base image changes'
                    )
                    subject.report(WORKDIR_RELATIVE, instruction.node, detail, advice="begin it with a slash")
                known = True
        anchored[stage.index] = known


def ignored_sources(subject: Subject) -> None:
    """COPY of what .dockerignore hides; lists that take something back cannot be judged without looking."""
    if subject.ignore is None or subject.ignore.has_exceptions:
        return
    everything = any(p.text in ("*", "**", "**/*") for p in subject.ignore.patterns)
    for stage in subject.selected():
        for instruction in stage.instructions:
            if not isinstance(instruction, ins.Copy | ins.Add) or _other_origin(instruction):
                continue
            for source in instruction.sources:
                if "://" in source or source.startswith("git@") or "$" in source:
                    continue
                cleaned = posixpath.normpath(source)
                hidden = everything if cleaned in (".", "/") else subject.ignore.ignores(cleaned)
                if hidden:
                    word = "Add" if isinstance(instruction, ins.Add) else "Copy"
                    detail = f'Attempting to {word} file "{cleaned}" that is excluded by .dockerignore'
                    subject.report(COPY_IGNORED, instruction.node, detail)


def _other_origin(instruction: ins.Copy | ins.Add) -> bool:
    return isinstance(instruction, ins.Copy) and instruction.from_ != ""


def exposed(subject: Subject) -> None:
    """EXPOSE with an address, a port of the host, or a protocol in capitals."""
    for stage in subject.selected():
        for instruction in stage.instructions:
            if not isinstance(instruction, ins.Expose):
                continue
            for index, port in enumerate(instruction.ports):
                if "$" not in port:  # `${PORT:-80}` is no mapping
                    _exposed(subject, instruction.node, index, port)


def _exposed(subject: Subject, node: Node, index: int, port: str) -> None:
    container, _, protocol = port.partition("/")
    if protocol != protocol.lower():
        detail = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
        subject.report(EXPOSE_CASING, node, detail, fix=_with_word(node, index, f"{container}/{protocol.lower()}"))
    if ":" in container:
        detail = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        kept = port.rpartition(":")[2]
        plain = re.fullmatch(r"\d+(-\d+)?(/\w+)?", kept)
        subject.report(EXPOSE_FORMAT, node, detail, fix=_with_word(node, index, kept) if plain else "")


# Variables


class _Listening:
    """Variables at a place of the file, which notes the names that nothing has set."""

    def __init__(self, escape: str, env: dict[str, str]) -> None:
        self._escape = escape
        self.env = env
        self.unset: list[str] = []

    def word(self, text: str) -> str:
        made = Expander(self._escape).expand(text, self.env)
        self.unset += sorted(made.unset)
        return made.words[0]

    def words(self, text: str) -> list[str]:
        made = Expander(self._escape).expand(text, self.env, split=True)
        self.unset += sorted(made.unset)
        return made.words

    def body(self, text: str) -> str:
        made = Expander(plain_quotes=True).expand(text, self.env)
        self.unset += sorted(made.unset)
        return made.words[0]


def undefined_variables(subject: Subject) -> None:
    """Variables that neither ARG, ENV nor the base image defines where they are used."""
    done: dict[int, tuple[dict[str, str], set[str]]] = {}
    wanted = {stage.index for stage in subject.selected()}
    for stage in subject.program.stages:
        parent = subject.parent(stage)
        if parent is not None:
            env, declared = dict(done[parent.index][0]), set(done[parent.index][1])
        else:
            env, declared = dict(subject.bases.get(subject.image(stage), Base()).environment), set()
        for instruction in stage.instructions:
            before = list(env)
            found = _uses(subject, instruction, env, declared)
            for name in found if stage.index in wanted else ():
                close = closest(name, before)
                hint = f" (did you mean ${close}?)" if close else ""
                subject.report(UNDEFINED_VAR, instruction.node, f"Usage of undefined variable '${name}'{hint}")
        done[stage.index] = env, declared


def _uses(subject: Subject, instruction: ins.Instruction, env: dict[str, str], declared: set[str]) -> list[str]:
    """Carry an instruction's definitions out, and return the names it uses that nothing defines."""
    listening = _Listening(subject.document.escape, env)
    try:
        if isinstance(instruction, ins.Arg):
            _declare(subject, instruction, listening, declared)
        elif not isinstance(instruction, ins.From):
            expanded = instruction.expanded(listening)
            if isinstance(expanded, ins.Env):
                env.update(expanded.pairs)
    except DockerfileError:
        return []  # the build says it better
    return [name for name in listening.unset if name not in declared]


def _declare(subject: Subject, arg: ins.Arg, listening: _Listening, declared: set[str]) -> None:
    outer = subject.global_values()
    for name, default in arg.pairs:
        if name in subject.args:
            listening.env[name] = subject.args[name]
        elif default is not None:
            listening.env[name] = listening.word(default)
        elif name in outer:
            listening.env[name] = outer[name]
        declared.add(name)


def _unset(subject: Subject, text: str, values: dict[str, str]) -> list[str]:
    try:
        return sorted(Expander(subject.document.escape).expand(text, values).unset)
    except DockerfileError:
        return []


# Words


def closest(word: str, options: Iterable[str]) -> str:
    """Return the first of the options nearest to a word, at most two edits away; empty when it is one of them."""
    best, found = 3, ""
    for option in options:
        if option == word:
            return ""
        distance = _distance(word, option)
        if distance < best:
            best, found = distance, option
    return found


def _distance(a: str, b: str) -> int:
    """Levenshtein's."""
    if abs(len(a) - len(b)) > 2:
        return 3
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def _all(subject: Subject) -> list[tuple[ins.Stage, ins.Instruction]]:
    return [(stage, each) for stage in subject.program.stages for each in stage.instructions]


def _one_case(word: str) -> bool:
    return word in (word.lower(), word.upper())


def _with_word(node: Node, index: int, new: str) -> str:
    """Return an instruction with another word among its arguments."""
    words = re.split(r"(\s+)", node.arguments)
    words[2 * index] = new
    return node.text[: node.arguments_offset] + "".join(words)


def _program(line: str) -> list[str]:
    """Return the words of a shell line that only starts a program; nothing when the shell does more than that."""
    words = line.split()
    plain = re.fullmatch(r"[\w ./:=@,+-]+", line) and words and not re.search(r"=|^-|:$", words[0])
    return words if plain and words[0] not in _SHELL_WORDS else []


WHILE_READING = (from_lines, maintainers, definition_comments)
"""Checks that hold for a file whose later lines cannot be read."""

CHECKS = (
    *WHILE_READING,
    empty_continuations,
    stage_names,
    casing,
    default_arguments,
    undeclared_in_from,
    platforms,
    key_values,
    repeated,
    shell_forms,
    working_directories,
    ignored_sources,
    exposed,
    undefined_variables,
)
