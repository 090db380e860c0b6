"""Repositories for ADD: fetched with the machine's git, one directory for each commit.

git runs in an environment of its own: no configuration of the user or the system, no prompt, no helper, only the
network protocols (https://git-scm.com/docs/git#Documentation/git.txt-codeGITALLOWPROTOCOLcode), so that neither a
`file://` source nor a submodule can reach into this machine. Hooks and filters of a repository are never run.

What is kept with `--keep-git-dir` is made the same for every fetch of a commit: without logs, hooks, or an index that
carries times of this machine.
"""

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kestrel.base.errors import DataLoss, InvalidArgument, NotFound, Unavailable, nearest
from kestrel.base.files import private_directory
from kestrel.base.proc import ProcessFailed, run
from kestrel.build.threads import finished
from kestrel.build.tree import Tree
from kestrel.dockerfile.gitref import GitRef

_TIMEOUT = 900.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Repositories:
    """The kept checkouts, below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory)
        self._locks: dict[str, asyncio.Lock] = {}

    async def fetch(self, source: GitRef, *, ssh: str = "") -> Path:
        """Return the directory with a commit's files; `ssh` is the socket of an agent. Raises KestrelError."""
        lock = self._locks.setdefault(source.remote, asyncio.Lock())
        async with lock:
            commit, ref = await self._commit(source, ssh)
            place = self._place(source, commit)
            if not place.exists():
                await self._checkout(source, commit, ref, place, ssh)
            return place

    def tree(self, place: Path, source: GitRef) -> Tree:
        """Return the files as a tree to copy from."""
        return Tree(
            os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
            name=f"the repository {without_password(source.remote)}",
        )

    def _place(self, source: GitRef, commit: str) -> Path:
        kept = (
            f"{source.remote}\n{source.ref if source.keep_git_dir else ''}\n{source.submodules}\n{source.keep_git_dir}"
        )
        return self._directory / f"{commit}-{hashlib.sha256(kept.encode()).hexdigest()[:12]}"

    async def _commit(self, source: GitRef, ssh: str) -> tuple[str, str]:
        """Return the commit a reference means now, and the reference's whole name (empty for a bare commit)."""
        if (source.checksum and source.fetch_by_commit) or _COMMIT.fullmatch(source.ref):
            commit = source.checksum if source.fetch_by_commit else source.ref
            if not source.checksum or commit.startswith(source.checksum):
                return commit, ""
        listed = await self._git(["ls-remote", "--symref", "--", source.remote], source, ssh)
        commit, ref, named = _pick(listed, source)
        if source.checksum and not any(each.startswith(source.checksum) for each in (commit, named)):
            raise DataLoss(
                f"{without_password(source.remote)} has {commit} at {source.ref or 'HEAD'}, not {source.checksum}",
                hint="the reference moved, or is not the one that was meant",
            )
        return commit, ref

    async def _checkout(self, source: GitRef, commit: str, ref: str, place: Path, ssh: str) -> None:
        work = self._directory / f".{os.urandom(8).hex()}"
        try:
            form = "sha256" if len(commit) == 64 else "sha1"
            await self._git(["init", "-q", f"--object-format={form}", "--", str(work)], source, ssh)
            what = f"+{ref}:{ref}" if ref.startswith("refs/tags/") else ref or commit
            fetch = ["-C", str(work), "fetch", "-q", "--no-tags"]
            await self._shallow(fetch, ["--", source.remote, what], source, ssh)
            await self._git(["-C", str(work), "checkout", "-q", "--detach", commit], source, ssh)
            # The directory's own time is the commit's, for whoever asks how old the context is.
            moment = int(await self._git(["-C", str(work), "show", "-s", "--format=%ct", commit], source, ssh))
            if source.submodules is not False and (work / ".gitmodules").exists():
                update = ["-C", str(work), "submodule", "update", "-q", "--init", "--recursive"]
                await self._shallow(update, [], source, ssh)
            if source.keep_git_dir:
                await self._settle(source, work)
            else:
                await finished(_forget_git, work)
            os.utime(work, (moment, moment))
            work.rename(place)
        finally:
            await finished(shutil.rmtree, work, True)

    async def _shallow(self, command: Sequence[str], what: Sequence[str], source: GitRef, ssh: str) -> None:
        """Fetch without history where the server can do that: one that only serves files ("dumb" http) cannot."""
        try:
            await self._git([*command, "--depth=1", *what], source, ssh)
        except Unavailable as error:
            if "shallow" not in error.message:
                raise
            await self._git([*command, *what], source, ssh)

    async def _settle(self, source: GitRef, work: Path) -> None:
        """Take out of .git what differs from fetch to fetch."""
        git = work / ".git"
        await self._git(["-C", str(work), "remote", "add", "origin", source.remote], source, "")
        for name in ("logs", "hooks", "branches"):
            await finished(shutil.rmtree, git / name, True)
        for name in ("FETCH_HEAD", "index", "ORIG_HEAD"):
            (git / name).unlink(missing_ok=True)
        await self._git(["-C", str(work), "read-tree", "HEAD"], source, "")

    async def _git(self, arguments: Sequence[str], source: GitRef, ssh: str) -> str:
        options = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never"]
        try:
            done = await run(["git", *options, *arguments], timeout=_TIMEOUT, environment=self._environment(ssh))
            return done.check().stdout.decode("utf-8", "replace")
        except NotFound as error:
            raise NotFound("ADD of a repository needs git on this machine", hint="apt-get install git") from error
        except ProcessFailed as error:
            raise Unavailable(
                f"cannot fetch {without_password(source.remote)}: {without_password(error.message)}",
                hint="check the address, the reference, and whether it is public (or give --ssh default)",
            ) from None

    def _environment(self, ssh: str) -> Mapping[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._directory),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_ALLOW_PROTOCOL": "https:http:git:ssh",
            "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
        }
        names = ("https_proxy", "http_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE")
        environment.update({name: os.environ[name] for name in names if name in os.environ})
        return {**environment, "SSH_AUTH_SOCK": ssh} if ssh else environment


def check(source: GitRef) -> None:
    """Refuse what git would take for an option. Raises InvalidArgument."""
    if source.remote.startswith("-") or source.ref.startswith("-"):
        raise InvalidArgument(f"invalid repository `{without_password(source.remote)}#{source.ref}`")


def _pick(listed: str, source: GitRef) -> tuple[str, str, str]:
    """Find a reference in what `git ls-remote --symref` printed: tags and branches by short name, HEAD by default.

    Returns the commit, the reference's whole name, and the object that it names: an annotated tag is one itself.
    """
    refs: dict[str, str] = {}
    head = ""
    for line in listed.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            head = value.removeprefix("ref: ")
        elif name:
            refs[name] = value
    if not source.ref:
        if "HEAD" in refs:
            return refs["HEAD"], head, refs["HEAD"]
        raise NotFound(f"{without_password(source.remote)} has no HEAD", hint="name a branch or a tag: URL#NAME")
    for name in (source.ref, f"refs/{source.ref}", f"refs/tags/{source.ref}", f"refs/heads/{source.ref}"):
        if name in refs:
            return refs.get(f"{name}^{{}}", refs[name]), name, refs[name]
    raise NotFound(f"{without_password(source.remote)} has no {source.ref}", hint=_some(refs, source.ref))


def _some(refs: Mapping[str, str], ref: str) -> str | None:
    names = [
        name.split("/", 2)[2] for name in refs if name.startswith(("refs/heads/", "refs/tags/")) and "^" not in name
    ]
    close = nearest(ref, names)
    if close is not None:
        return f"did you mean {close}?"
    return f"it has {', '.join(sorted(names)[:8])}" if names else None


def _forget_git(work: Path) -> None:
    shutil.rmtree(work / ".git", ignore_errors=True)
    for link in work.rglob(".git"):  # those of submodules
        if link.is_file():
            link.unlink()


def without_password(text: str) -> str:
    """Return a text whose URLs have no passwords."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)
