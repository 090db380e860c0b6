"""Git repositories as sources: `url#ref:directory`, and the same things as a query.

    https://host/app.git#v1.2:docs      git@host:team/app.git      ssh://host/app.git?tag=v1.2&subdir=docs

An http(s) URL is a repository only when its path ends in `.git`; otherwise it is a file. The forms are those of
https://docs.docker.com/reference/dockerfile/#adding-files-from-a-git-repository.
"""

import posixpath
import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlsplit

from kestrel.dockerfile.errors import DockerfileError, suggestion

_SCHEMES = ("http", "https", "ssh", "git")
_SCP = re.compile(
    r"(?P<user>[a-zA-Z0-9_-]+)@(?P<host>[a-zA-Z0-9.-]+):(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?"
)
_SWITCHES = {"keep-git-dir": "keep_git_dir", "submodules": "submodules", "fetch-by-commit": "fetch_by_commit"}
_KEYS = (
    "branch",
    "checksum",
    "commit",
    "fetch-by-commit",
    "keep-git-dir",
    "mtime",
    "ref",
    "subdir",
    "submodules",
    "tag",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitRef:
    """A place in a repository. `remote` is what git is given; None means: as the instruction says."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool = False

    @property
    def name(self) -> str:
        """The repository's last name without `.git`."""
        return self.remote.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")

    @property
    def plain(self) -> bool:
        """Whether it travels unencrypted."""
        return self.remote.startswith(("http://", "git://"))

    @property
    def implicit(self) -> bool:
        """Whether it is written like a local path (`github.com/a/b`), which only build contexts may be."""
        return self.remote.startswith("github.com/")


def parse_git(text: str) -> GitRef | None:
    """Read a source as a repository; None when it is something else. Raises DockerfileError for a bad query."""
    if text.startswith(("./", "../")):
        return None
    if match := _SCP.fullmatch(text):
        remote = f"{match['user']}@{match['host']}:{match['path']}"
        return _with(remote, match["query"] or "", match["fragment"] or "")
    implicit = text.startswith("github.com/")
    try:
        url = urlsplit(f"https://{text}" if implicit else text)
    except ValueError:
        return None
    if not implicit:
        if url.scheme.lower() not in _SCHEMES or not url.netloc:
            return None
        if url.scheme.lower() in ("http", "https") and not url.path.endswith(".git"):
            return None
    remote = f"{url.netloc}{url.path}" if implicit else f"{url.scheme}://{url.netloc}{url.path}"
    return _with(remote, url.query, url.fragment)


def _with(remote: str, query: str, fragment: str) -> GitRef:
    ref, _, subdir = fragment.partition(":")
    made = GitRef(remote=remote, ref=ref, subdir=posixpath.normpath(f"/{subdir}").strip("/") if subdir else "")
    tag = branch = ""
    seen: set[str] = set()
    for key, value in parse_qsl(query, keep_blank_values=True):
        _known(key, value, seen)
        if key == "tag":
            tag = value if value.startswith("refs/tags/") else f"refs/tags/{value}"
        elif key == "branch":
            branch = value if value.startswith("refs/heads/") else f"refs/heads/{value}"
        else:
            made = _set(made, key, value)
    if tag and branch:
        raise DockerfileError("branch conflicts with tag", hint="name one of them")
    return _set(made, "ref", tag or branch) if tag or branch else made


def _known(key: str, value: str, seen: set[str]) -> None:
    if key not in _KEYS:
        hint = suggestion(key, _KEYS) or f"it is one of {', '.join(_KEYS)}"
        raise DockerfileError(f'unexpected query "{key}" of a git repository', hint=hint)
    if key in seen:
        raise DockerfileError(f'query "{key}" has multiple values')
    if not value and key not in _SWITCHES:
        raise DockerfileError(f'query "{key}" has no value')
    seen.add(key)


def _set(made: GitRef, key: str, value: str) -> GitRef:
    if key in ("ref", "subdir"):
        before = made.ref if key == "ref" else made.subdir
        if before and before != value:
            raise DockerfileError(f'{key} conflicts: "{before}" vs "{value}"')
        return replace(made, ref=value) if key == "ref" else replace(made, subdir=value)
    if key in ("checksum", "commit"):
        return replace(made, checksum=value)
    if key == "mtime":
        if value not in ("checkout", "commit"):
            raise DockerfileError(f'invalid mtime value: "{value}"', hint="write checkout or commit")
        return replace(made, mtime=value)
    switch = {"": True, "1": True, "t": True, "true": True, "0": False, "f": False, "false": False}.get(value.lower())
    if switch is None:
        raise DockerfileError(f'invalid {key} value: "{value}"', hint="write true or false")
    if key == "keep-git-dir":
        return replace(made, keep_git_dir=switch)
    return replace(made, submodules=switch) if key == "submodules" else replace(made, fetch_by_commit=switch)
