"""Rules about packages, layers, users and shells: what makes images large, unrepeatable or unsafe.

Shell lines are read only as far as needed: words at `&&`, `||`, `;` and `|`, quotes respected. Whatever is built at
run time (variables, functions) is not guessed at.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.lint import Rule, Subject
from kestrel.dockerfile.lint_shell import expansions

LAST_USER_ROOT = Rule(name="LastUserIsRoot", description="The container should not run as root without need")
UNTAGGED = Rule(name="UntaggedBaseImage", description="A base image without a tag changes under the build")
LATEST = Rule(name="LatestBaseImage", description="The tag `latest` changes under the build")
UNPINNED = Rule(name="UnpinnedPackage", description="Packages without a version make builds differ from day to day")
CACHE_LEFT = Rule(name="PackageCacheLeft", description="Package lists and caches in a layer are dead weight")
RECOMMENDS = Rule(name="RecommendedPackages", description="apt-get installs recommended packages unless told not to")
ADD_FOR_FILES = Rule(name="AddForLocalFiles", description="COPY does just that; ADD also unpacks and downloads")
REGISTRY = Rule(name="RegistryNotAllowed", description="The base image comes from a registry that is not on the list")
RELATIVE_DESTINATION = Rule(
    name="RelativeCopyDestination", description="A relative destination without a WORKDIR depends on the base image"
)
HIGH_UID = Rule(name="UserWithHighId", description="useradd writes a log as large as the user number is high")
CONSECUTIVE_RUNS = Rule(name="ConsecutiveRuns", description="Each RUN is a layer; what belongs together can share one")
WHOLE_STAGE = Rule(name="CopiesWholeStage", description="Copying a whole file system defeats the stage")
PIPEFAIL = Rule(name="PipeWithoutPipefail", description="Of a pipe only the last command's failure is noticed")
CD_UNCHECKED = Rule(name="CdUnchecked", description="A cd that fails lets the rest run in the wrong directory")
SPLIT_VARIABLE = Rule(name="UnquotedVariable", description="What an unquoted variable holds is split and globbed")
SPLIT_COMMAND = Rule(name="UnquotedSubstitution", description="What an unquoted command prints is split and globbed")
HIDDEN_FAILURE = Rule(name="DeclarationHidesFailure", description="export succeeds whatever the command in it does")
SUDO = Rule(name="SudoInRun", description="sudo has no use in a build, and its signals and terminal are odd")
APT_NOT_GET = Rule(name="AptForPeople", description="apt is for people; its output and options may change")
NO_YES = Rule(name="AptGetWithoutYes", description="apt-get asks, and nobody answers")
SPLIT_UPDATE = Rule(
    name="UpdateWithoutInstall", description="A cached `apt-get update` gives stale lists to later steps"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One simple command of a shell line, and the operator before it."""

    words: tuple[str, ...]
    operator: str = ""

    @property
    def program(self) -> str:
        """The command's name without its directory."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def operands(self) -> tuple[str, ...]:
        """What is neither option nor redirection."""
        return tuple(w for w in self.words[1:] if not w.startswith("-") and not re.match(r"\d*[<>]", w))


def pieces(line: str) -> tuple[Piece, ...]:
    """Cut a shell line into its commands; nothing for one whose quotes do not match."""
    reader = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    reader.whitespace = " \t\r"
    reader.commenters = ""
    reader.whitespace_split = True
    found: list[Piece] = []
    words: list[str] = []
    operator = ""
    try:
        for token in reader:
            if re.fullmatch(r"[;|&\n()]+", token):
                if words:
                    found.append(Piece(tuple(_command(words)), operator))
                words, operator = [], token
            else:
                words.append(token)
    except ValueError:
        return ()
    if words:
        found.append(Piece(tuple(_command(words)), operator))
    return tuple(piece for piece in found if piece.words)


def _command(words: list[str]) -> list[str]:
    """Leave off assignments, `set -x;`-like noise, and what only runs another command."""
    while words and (
        re.fullmatch(r"\w+=.*", words[0], re.DOTALL) or words[0] in ("env", "exec", "then", "do", "!", "{")
    ):
        words = words[1:]
    return words


@dataclass(frozen=True, slots=True)
class _Shell:
    """A RUN in shell form: its commands and whether failures in pipes are noticed."""

    run: ins.Run
    text: str
    pieces: tuple[Piece, ...]
    pipefail: bool


def _shells(subject: Subject) -> Iterator[_Shell]:
    for stage in subject.selected():
        pipefail = False
        for instruction in stage.instructions:
            if isinstance(instruction, ins.Shell):
                pipefail = "pipefail" in instruction.argv
            elif isinstance(instruction, ins.Run) and instruction.command.shell:
                body = "\n".join(h.body for h in instruction.heredocs)
                text = body if instruction.heredocs else instruction.command.line
                if not body.startswith("#!"):
                    yield _Shell(instruction, text, pieces(text), pipefail or "pipefail" in text)


# Base images


def base_images(subject: Subject) -> None:
    """Tags that move, and registries that are not on the list."""
    for stage in subject.selected():
        name = subject.image(stage)
        if subject.parent(stage) is not None or name in ("scratch", "") or "$" in name or "@" in name:
            continue
        node = stage.from_.node
        repository, _, tag = name.rpartition("/")[2].partition(":")
        if not tag:
            subject.report(UNTAGGED, node, f"{name} has no tag", advice=f"name one: {name}:VERSION, best with a digest")
        elif tag == "latest":
            subject.report(LATEST, node, f"{name} is whatever is newest", advice=f"name a version of {repository}")
        first, slash, _ = name.partition("/")
        host = first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
        if subject.registries and host not in subject.registries:
            subject.report(
                REGISTRY, node, f"{name} is from {host}", advice=f"allowed are {', '.join(subject.registries)}"
            )


def last_user(subject: Subject) -> None:
    """USER root as the last word of the target."""
    if not subject.program.stages:
        return
    stage = subject.program.stages[-1]
    users = [i for i in stage.instructions if isinstance(i, ins.User)]
    if users and users[-1].user.partition(":")[0] in ("root", "0"):
        subject.report(LAST_USER_ROOT, users[-1].node, "the last USER is root", advice="end with a user of its own")


# Packages


def packages(subject: Subject) -> None:
    """What package managers are asked for, and what they leave."""
    for shell in _shells(subject):
        for piece in shell.pieces:
            _apt(subject, shell, piece)
            _pip(subject, shell, piece)
            _npm(subject, shell, piece)
            _apk(subject, shell, piece)
            _rpm(subject, shell, piece)
        _apt_lists(subject, shell)


def _apt(subject: Subject, shell: _Shell, piece: Piece) -> None:
    node = shell.run.node
    if piece.program == "apt" and len(piece.words) > 1:
        subject.report(APT_NOT_GET, node, f"`apt {piece.words[1]}` in a build", advice="use apt-get")
    if piece.program not in ("apt", "apt-get") or "install" not in piece.operands:
        return
    named = [word for word in piece.operands if word != "install"]
    loose = [w for w in named if not re.search(r"[=/$*]", w) and not w.endswith(".deb")]
    if loose:
        _unpinned(subject, shell, "apt-get", loose, "NAME=VERSION, or a snapshot of the archive as source")
    if not any(re.fullmatch(r"-y+|-[a-z]*y[a-z]*|--yes|--assume-yes|-qq", w) for w in piece.words):
        fix = _inserted(shell, piece, "install", "-y")
        subject.report(NO_YES, node, "apt-get install waits for an answer", fix=fix, advice="add -y")
    if "--no-install-recommends" not in piece.words and "APT::Install-Recommends" not in shell.text:
        advice = "add --no-install-recommends, and name those that are needed"
        subject.report(RECOMMENDS, node, "recommended packages are installed too", advice=advice)


def _apt_lists(subject: Subject, shell: _Shell) -> None:
    commands = [p for p in shell.pieces if p.program in ("apt", "apt-get")]
    if not any("update" in p.operands for p in commands):
        return
    node = shell.run.node
    if not any(word in p.operands for p in commands for word in ("install", "upgrade", "dist-upgrade", "build-dep")):
        subject.report(
            SPLIT_UPDATE, node, "`apt-get update` has a layer of its own", advice="put update and install into one RUN"
        )
    mounted = any("/var/lib/apt" in mount for mount in shell.run.mounts)
    if "/var/lib/apt/lists" not in shell.text and not mounted:
        advice = "rm -rf /var/lib/apt/lists/* in the same RUN, or --mount=type=cache,target=/var/lib/apt"
        subject.report(CACHE_LEFT, node, "package lists stay in the layer (/var/lib/apt/lists)", advice=advice)


def _pip(subject: Subject, shell: _Shell, piece: Piece) -> None:
    words = piece.words
    if piece.program.startswith("python") and words[1:3] == ("-m", "pip"):
        words = words[2:]
    if not re.fullmatch(r"pip[\d.]*", words[0].rpartition("/")[2]) or "install" not in words:
        return
    after = words[words.index("install") + 1 :]
    valued = ("-r", "--requirement", "-c", "--constraint", "-t", "--target", "-i", "--index-url", "-e", "--prefix")
    named = [
        w for w, before in zip(after, ("", *after), strict=False) if not w.startswith("-") and before not in valued
    ]
    loose = [w for w in named if not re.search(r"==|===|@|[/$]|\.whl|\.tar|^\.", w)]
    if loose and not any(w in ("-c", "--constraint") for w in after):
        _unpinned(subject, shell, "pip", loose, "NAME==VERSION, or -r requirements.txt")
    cached = any("pip" in mount or "/root/.cache" in mount for mount in shell.run.mounts)
    if "--no-cache-dir" not in words and "PIP_NO_CACHE_DIR" not in subject.document.source.text and not cached:
        # What removes a cache may fail where there is none.
        used = re.search(r"\.cache|pip\S* cache|--cache-dir|PIP_CACHE_DIR", subject.document.source.text)
        fix = "" if used else _inserted(shell, piece, "install", "--no-cache-dir")
        subject.report(
            CACHE_LEFT, shell.run.node, "pip keeps its cache in the layer (~/.cache/pip)", fix=fix,
            advice="--no-cache-dir, or --mount=type=cache,target=/root/.cache/pip",
        )  # fmt: skip


def _npm(subject: Subject, shell: _Shell, piece: Piece) -> None:
    if piece.program == "npm" and len(piece.words) > 1 and piece.words[1] in ("install", "i", "add"):
        loose = [w for w in piece.operands[1:] if "@" not in w[1:] and not re.search(r"[/$.:]", w.lstrip("@"))]
        if loose:
            _unpinned(subject, shell, "npm", loose, "NAME@VERSION, or npm ci with a lock file")
    installs = piece.program == "yarn" and piece.words[1:2] == ("install",)
    if installs and "yarn cache clean" not in shell.text and not shell.run.mounts:
        advice = "yarn cache clean in the same RUN, or a cache mount"
        subject.report(CACHE_LEFT, shell.run.node, "yarn keeps its cache in the layer", advice=advice)


def _apk(subject: Subject, shell: _Shell, piece: Piece) -> None:
    if piece.program != "apk" or "add" not in piece.operands:
        return
    named = [w for w in piece.operands if w != "add" and not w.startswith(".")]
    loose = [w for w in named if not re.search(r"[=<>~@$/]", w)]
    if loose:
        _unpinned(subject, shell, "apk", loose, "NAME=VERSION")
    mounted = any("/apk" in mount for mount in shell.run.mounts)
    if "--no-cache" not in piece.words and "/var/cache/apk" not in shell.text and not mounted:
        subject.report(CACHE_LEFT, shell.run.node, "apk keeps its index (/var/cache/apk)", advice="--no-cache")


def _rpm(subject: Subject, shell: _Shell, piece: Piece) -> None:
    if piece.program not in ("yum", "dnf", "microdnf", "zypper") or not {"install", "in"} & set(piece.operands):
        return
    if not re.search(rf"{piece.program} clean|rm -rf /var/cache/(yum|dnf|libdnf5|zypp)", shell.text):
        advice = f"{piece.program} clean all in the same RUN"
        subject.report(CACHE_LEFT, shell.run.node, f"{piece.program} keeps its cache in the layer", advice=advice)


def _unpinned(subject: Subject, shell: _Shell, manager: str, names: list[str], advice: str) -> None:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    subject.report(UNPINNED, shell.run.node, f"{manager} installs {shown} in any version", advice=advice)


# Copies


def copies(subject: Subject) -> None:
    """ADD for plain files, relative destinations, whole stages."""
    for stage in subject.selected():
        anchored = subject.parent(stage) is not None
        for instruction in stage.instructions:
            anchored = anchored or isinstance(instruction, ins.Workdir)
            if not isinstance(instruction, ins.Transfer):
                continue
            node = instruction.node
            if not anchored and not re.match(r"[/$\"']|[a-zA-Z]:", instruction.destination):
                detail = f"`{instruction.destination}` is relative and no WORKDIR stands before it"
                subject.report(RELATIVE_DESTINATION, node, detail, advice="begin it with a slash, or set WORKDIR")
            if isinstance(instruction, ins.Add) and instruction.sources and not instruction.inline:
                _add(subject, instruction)
            # Onto scratch it is meant: that is how layers are made one.
            if isinstance(instruction, ins.Copy) and _whole(instruction) and subject.image(stage) != "scratch":
                detail = f"all of {instruction.from_} is copied"
                subject.report(WHOLE_STAGE, node, detail, advice="name the directories that are needed")


def _whole(instruction: ins.Copy) -> bool:
    return bool(instruction.from_) and "/" in instruction.sources and instruction.destination == "/"


def _add(subject: Subject, instruction: ins.Add) -> None:
    special = re.compile(r"://|^git@|\.git$|\.(tar|tgz|tbz2?|txz|tar\.\w+|gz|xz|zst|bz2)$|[$*?\[]")
    if any(flag.name in ("checksum", "keep-git-dir", "unpack") for flag in instruction.node.flags):
        return
    if not any(special.search(source) for source in instruction.sources):
        advice = "use COPY, unless it is an archive: ADD unpacks those, whatever their name"
        subject.report(ADD_FOR_FILES, instruction.node, f"ADD of {' '.join(instruction.sources)}", advice=advice)


# Shell


def shells(subject: Subject) -> None:
    """Pipes, cd, sudo, useradd."""
    for shell in _shells(subject):
        node = shell.run.node
        piped = any(piece.operator == "|" for piece in shell.pieces)
        if piped and not shell.pipefail:
            advice = 'SHELL ["/bin/bash", "-o", "pipefail", "-c"] before it, or `set -o pipefail &&`'
            subject.report(PIPEFAIL, node, "a failure before the last `|` goes unnoticed", advice=advice)
        _quoting(subject, shell)
        strict = re.search(r"\bset -\w*e", shell.text) is not None
        for piece, following in zip(shell.pieces, (*shell.pieces[1:], Piece(())), strict=False):
            if piece.program == "cd" and following.operator in (";", "\n") and not strict:
                subject.report(
                    CD_UNCHECKED, node, f"`cd {' '.join(piece.words[1:])}`", advice="join it with &&, or WORKDIR"
                )
            if piece.program == "sudo":
                subject.report(SUDO, node, "sudo in a RUN", advice="USER root before it, and back after it")
            if piece.program == "useradd" and not {"-l", "--no-log-init"} & set(piece.words):
                _high_uid(subject, shell, piece)


def _quoting(subject: Subject, shell: _Shell) -> None:
    found, node = expansions(shell.text), shell.run.node
    for rule, written, advice in (
        (SPLIT_VARIABLE, found.variables, "put it in double quotes, unless it is a list that is meant to be split"),
        (SPLIT_COMMAND, found.commands, "put it in double quotes"),
        (HIDDEN_FAILURE, found.hidden, "assign first, then export"),
    ):
        if written:
            subject.report(rule, node, f"`{written[0]}`", advice=advice)


def _high_uid(subject: Subject, shell: _Shell, piece: Piece) -> None:
    words = piece.words
    for flag, value in pairwise(words):
        if flag in ("-u", "--uid") and value.isdecimal() and len(value) > 5:
            fix = _inserted(shell, piece, words[0], "-l")
            detail = f"user number {value} makes /var/log/lastlog and faillog large"
            subject.report(HIGH_UID, shell.run.node, detail, fix=fix, advice="add -l")


def consecutive(subject: Subject) -> None:
    """RUN right after RUN."""
    for stage in subject.selected():
        for before, run in pairwise(stage.instructions):
            if _plain(before) and _plain(run):
                advice = "join them with && where they change together"
                subject.report(CONSECUTIVE_RUNS, run.node, "a RUN follows a RUN", advice=advice)


def _plain(instruction: ins.Instruction) -> bool:
    if not isinstance(instruction, ins.Run):
        return False
    return instruction.command.shell and not instruction.heredocs and not instruction.node.flags


def _inserted(shell: _Shell, piece: Piece, after: str, word: str) -> str:
    """Return the instruction with a word put in after one of a command; empty where its place is not certain."""
    at = piece.words.index(after) + 1
    more = replace(piece, words=(*piece.words[:at], word, *piece.words[at:]))
    wanted = tuple(more if each is piece else each for each in shell.pieces)
    for found in re.finditer(re.escape(after), shell.text):
        line = f"{shell.text[: found.end()]} {word}{shell.text[found.end() :]}"
        if pieces(line) == wanted:
            return shell.run.node.text[: shell.run.node.arguments_offset] + line
    return ""


PRACTICE = (base_images, last_user, packages, copies, shells, consecutive)
