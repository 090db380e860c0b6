"""COPY, ADD and WORKDIR: what is selected from where, and where it goes."""

import re
from dataclasses import replace

from kestrel.base.errors import InvalidArgument
from kestrel.build.git import check
from kestrel.build.graph import Context, CopyFiles, Inline, MakeDirectory, Origin, Remote, Repository, Selection, Step
from kestrel.build.lower import Lowering
from kestrel.build.ownership import numeric_owner, parse_mode
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.decode import names_directory
from kestrel.dockerfile.gitref import GitRef, parse_git

_URL = re.compile(r"https?://", re.IGNORECASE)


def lower_copy(stage: Lowering, instruction: ins.Copy) -> None:
    """COPY: from the context, a stage, an image or the Dockerfile itself."""
    for source in instruction.sources:
        if _URL.match(source):
            raise stage.error(instruction, f"COPY takes files, and `{source}` is a URL", hint="ADD fetches it")
    origin: Origin | Step | Context = stage.find(instruction.from_) if instruction.from_ else Context()
    selections = []
    if instruction.sources:
        selections.append(
            Selection(
                origin=origin,
                patterns=instruction.sources,
                exclude=instruction.exclude,
                parents=instruction.parents,
            )
        )
    _lower(stage, instruction, [*selections, *_inline(instruction)])


def lower_add(stage: Lowering, instruction: ins.Add) -> None:
    """ADD: as COPY, and URLs, and local archives unpacked."""
    repositories = {s: found for s in instruction.sources if (found := _repository(instruction, s)) is not None}
    local = [s for s in instruction.sources if not _URL.match(s) and s not in repositories]
    remote = [s for s in instruction.sources if s not in local and s not in repositories]
    if instruction.checksum and (len(remote) + len(repositories) != 1 or local):
        raise stage.error(instruction, "--checksum is for exactly one remote source")
    if (
        instruction.checksum
        and remote
        and not re.fullmatch(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", instruction.checksum)
    ):
        raise stage.error(
            instruction, f"invalid checksum `{instruction.checksum}`", hint="write sha256: and 64 hex digits"
        )
    selections = [
        Selection(
            origin=Remote(url=url, checksum=instruction.checksum), patterns=("*",), unpack=instruction.unpack is True
        )
        for url in remote
    ]
    selections += [
        Selection(origin=Repository(source=source), patterns=(source.subdir or "/",), exclude=instruction.exclude)
        for source in repositories.values()
    ]
    if local:
        selections.append(
            Selection(
                origin=Context(),
                patterns=tuple(local),
                exclude=instruction.exclude,
                unpack=instruction.unpack is not False,
            )
        )
    _lower(stage, instruction, [*selections, *_inline(instruction)])


def _repository(instruction: ins.Add, source: str) -> GitRef | None:
    """Read a source as a repository, with what the instruction's flags say; None when it is something else."""
    found = parse_git(source)
    if found is None or found.implicit:
        return None
    check(found)
    if instruction.checksum:
        if found.checksum and found.checksum != instruction.checksum:
            raise InvalidArgument(f"--checksum={instruction.checksum} contradicts {source}")
        if not re.fullmatch(r"[0-9a-f]{4,64}", instruction.checksum):
            raise InvalidArgument(f"invalid checksum `{instruction.checksum}`", hint="a repository's is a commit")
        found = replace(found, checksum=instruction.checksum)
    return replace(found, keep_git_dir=True) if instruction.keep_git_dir else found


def _inline(instruction: ins.Transfer) -> list[Selection]:
    files = tuple((heredoc.name, heredoc.body) for heredoc in instruction.inline)
    return [Selection(origin=Inline(files=files))] if files else []


def _lower(stage: Lowering, instruction: ins.Transfer, selections: list[Selection]) -> None:
    destination = instruction.destination
    several = len(instruction.sources) + len(instruction.inline) > 1
    if several and not names_directory(destination):
        raise stage.error(
            instruction,
            f"with more than one source the destination must be a directory: `{destination}`",
            hint=f"write it with a slash at the end: `{destination}/`",
        )
    parse_mode(instruction.chmod)
    operation = CopyFiles(
        selections=tuple(selections),
        destination=stage.absolute(destination),
        as_directory=names_directory(destination),
        chown=instruction.chown,
        chmod=instruction.chmod,
        # A name can only be looked up in the stage below, on which a linked layer must not depend.
        link=instruction.link and (not instruction.chown or numeric_owner(instruction.chown) is not None),
    )
    stage.step(instruction, operation, _created_by(instruction))


def _created_by(instruction: ins.Transfer) -> str:
    flags = "".join(f"{flag} " for flag in map(str, instruction.node.flags))
    names = (f"<<{heredoc.name}" for heredoc in instruction.inline)
    return f"{instruction.node.keyword} {flags}{' '.join((*instruction.sources, *names, instruction.destination))}"


def lower_workdir(stage: Lowering, instruction: ins.Workdir) -> None:
    """WORKDIR: relative to the one before; the directory is made if it is not there."""
    path = stage.absolute(instruction.path)
    # Docker keeps an absolute path as it is written: a slash at its end is seen by whoever reads the configuration.
    stage.configure(working_dir=instruction.path if instruction.path.startswith("/") else path)
    if path == "/":
        stage.record("WORKDIR /")
        return
    stage.step(instruction, MakeDirectory(path=path, user=stage.config.user), f"WORKDIR {path}")
