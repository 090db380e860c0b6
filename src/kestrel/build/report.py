"""`build --context-report`: what the steps of a plan read of the build context, and what they need not.

Nothing is sent anywhere here: a file that no COPY, ADD or mount names is not even opened. What a COPY of a whole
directory sweeps in is read, hashed and put into a layer each time it changes, though; that is what the report is
about. It looks, and reads no file.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kestrel.base.errors import KestrelError
from kestrel.build.graph import Context, CopyFiles, Execute, Plan, Selection, Step
from kestrel.build.tree import DIRECTORY, Entry, Source, Tree

_SHOWN: Final = 10
_OWN: Final = ("Dockerfile", ".dockerignore")
_UNWANTED: Final = (
    (r"\.git", "the history of a repository"),
    (r"node_modules", "installed modules; a RUN installs those of the image's platform"),
    (r"__pycache__|.+\.pyc", "compiled Python, which Python makes again"),
    (r"\.?venv", "a virtual environment, which holds paths of this machine"),
    (r"\.(mypy|pytest|ruff)_cache|\.tox|\.nox|\.hypothesis", "caches of development tools"),
    (r"\.idea|\.vscode|\.DS_Store|.+\.sw[op]", "files of an editor"),
    (r"\.terraform|\.gradle|\.next|\.nuxt|\.parcel-cache", "caches of a build tool"),
    (r"\.env(\..+)?|.+\.pem|.+\.key|id_(rsa|ed25519|ecdsa)|\.npmrc|\.netrc", "may hold secrets"),
    (r".+\.log", "logs, which change all the time"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one step reads of the context; `missing` is the error when it names something that is not there."""

    step: str
    title: str
    files: int
    size: int
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some files: a path or a pattern, how many and how many bytes, and what is to be said of them."""

    path: str
    files: int
    size: int
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReport:
    """All of it: `context` are files that may be read, `hidden` those that the ignore file hides, `used` those read.

    `largest` are the biggest that are read, `unused` what no step names, by what is at the top of the context, and
    `suggested` lines for the ignore file with what each would save.
    """

    ignore_file: str
    context: Part
    hidden: Part
    used: Part
    reads: tuple[Read, ...]
    largest: tuple[Part, ...]
    unused: tuple[Part, ...]
    suggested: tuple[Part, ...]


def report(plan: Plan, open_context: Callable[[], Tree], whole: Callable[[], Tree]) -> ContextReport:
    """Look at the context; `open_context` gives it as steps see it, `whole` with nothing hidden. Blocks."""
    with open_context() as tree:
        seen = _sizes(tree.select("/"))
        used: dict[str, int] = {}
        reads = [_read(step, selections, tree, used) for step, selections in _readers(plan)]
        ignore_file = tree.ignore.name if tree.ignore else ""
    with whole() as tree:
        everything = _sizes(tree.select("/"))
    hidden = {path: size for path, size in everything.items() if path not in seen}
    unused = {path: size for path, size in seen.items() if path not in used and path not in _OWN}
    largest = sorted(used.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    return ContextReport(
        ignore_file=ignore_file,
        context=_part("", seen),
        hidden=_part("", hidden),
        used=_part("", used),
        reads=tuple(reads),
        largest=tuple(Part(path=path, files=1, size=size) for path, size in largest),
        unused=tuple(_grouped(unused)[:_SHOWN]),
        suggested=tuple(_suggestions(used)),
    )


def _readers(plan: Plan) -> Iterator[tuple[Step, list[Selection]]]:
    """Yield the steps that read the main context, with what they select there."""
    for step in plan.steps:
        selections: list[Selection] = []
        if isinstance(step.operation, CopyFiles):
            selections = [each for each in step.operation.selections if each.origin == Context()]
        elif isinstance(step.operation, Execute):
            mounted = [each for each in step.operation.mounts if each.origin == Context()]
            selections = [Selection(origin=Context(), patterns=(each.mount.source,)) for each in mounted]
        if selections:
            yield step, selections


def _read(step: Step, selections: Iterable[Selection], tree: Tree, used: dict[str, int]) -> Read:
    found: dict[str, int] = {}
    missing = ""
    for selection in selections:
        select = tree.select_parents if selection.parents else tree.select
        for pattern in selection.patterns:
            try:
                found.update(_sizes(select(pattern, exclude=selection.exclude)))
            except KestrelError as error:
                missing = error.message
    used.update(found)
    return Read(step=step.id, title=step.title, files=len(found), size=sum(found.values()), missing=missing)


def _sizes(sources: Iterable[Source]) -> dict[str, int]:
    """Return the bytes of each file by its path in the context."""
    return {
        _path(source, entry): entry.size for source in sources for entry in source.entries if entry.kind != DIRECTORY
    }


def _path(source: Source, entry: Entry) -> str:
    return posixpath.join(source.path, entry.path) if entry.path else source.path


def _part(path: str, files: Mapping[str, int], about: str = "") -> Part:
    return Part(path=path, files=len(files), size=sum(files.values()), about=about)


def _grouped(files: Mapping[str, int]) -> list[Part]:
    """Sum files up by the first part of their paths, the largest first."""
    groups: dict[str, dict[str, int]] = {}
    for path, size in files.items():
        top, slash, _ = path.partition("/")
        groups.setdefault(top + slash, {})[path] = size
    return sorted((_part(top, inside) for top, inside in groups.items()), key=lambda part: (-part.size, part.path))


def _suggestions(used: Mapping[str, int]) -> list[Part]:
    """Return lines for the ignore file that would keep out what images seldom need, the largest saving first."""
    found: dict[str, dict[str, int]] = {}
    about: dict[str, str] = {}
    for path, size in used.items():
        names = path.split("/")
        for expression, why in _UNWANTED:
            name = next((name for name in names if re.fullmatch(expression, name)), None)
            if name is not None:
                line = f"**/*{posixpath.splitext(name)[1]}" if name == names[-1] and _by_suffix(name) else f"**/{name}"
                found.setdefault(line, {})[path] = size
                about[line] = why
                break
    parts = [_part(line, inside, about[line]) for line, inside in found.items()]
    return sorted(parts, key=lambda part: (-part.size, part.path))


def _by_suffix(name: str) -> bool:
    return posixpath.splitext(name)[1] in (".pyc", ".pem", ".key", ".log", ".swp", ".swo")
