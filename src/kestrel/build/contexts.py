"""Contexts that are elsewhere, brought here before a build begins; what is a directory of this machine stays as it is.

    https://host/app.git#ref:directory   a repository (every form that ADD takes)
    https://host/app.tar.gz              an archive, unpacked; a page that is none is a Dockerfile without other files
    docker-image://NAME                  an image, wherever the Dockerfile says the context's name
    oci-layout://DIRECTORY[:TAG][@DIGEST]   an image out of an OCI layout

The forms are those of `docker build` and its `--build-context`. The time of a repository is that of its commit, the
time of an archive what its server says, or its newest file: `SOURCE_DATE_EPOCH=context` clamps to it. Both are kept
as the modification time of the directory that the context becomes.
"""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

from msgspec.structs import replace as replace_fields

from kestrel.archive.apply import Form, apply
from kestrel.archive.entries import Entry
from kestrel.archive.writer import TarWriter
from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.base.files import private_directory
from kestrel.build.archives import is_archive, plain
from kestrel.build.bases import Images
from kestrel.build.collect import remember
from kestrel.build.git import Repositories, check, without_password
from kestrel.build.remote import Downloads
from kestrel.build.request import DOCKERFILE, BuildRequest
from kestrel.build.threads import finished
from kestrel.dockerfile.gitref import GitRef, parse_git
from kestrel.oci.manifest import LIMIT, REF_NAME, Index

IMAGE, LAYOUT = "docker-image:", "oci-layout:"
KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""The argument that leaves `.git` in contexts which are repositories; docker's name for it."""
_URL = re.compile(r"https?://", re.IGNORECASE)


def is_elsewhere(text: str) -> bool:
    """Tell whether a context is written as something else than a directory."""
    return text.startswith((IMAGE, LAYOUT)) or _URL.match(text) is not None or parse_git(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Brings contexts here. `directory` is for what archives become."""

    downloads: Downloads
    repositories: Repositories
    images: Images
    directory: Path

    async def at_hand(self, request: BuildRequest) -> BuildRequest:
        """Return the request with directories and images in the place of what is elsewhere. Raises KestrelError."""
        ssh = str(request.ssh.get("default", ""))
        named = dict(request.contexts)
        images = dict(request.images)
        times = dict(request.times)
        for name, where in {"": request.context, **named}.items():
            if isinstance(where, Path) or not is_elsewhere(where):
                continue
            if where.startswith((IMAGE, LAYOUT)) and name:
                images[name] = await self._image(where)
                del named[name]
                continue
            keep = not name and request.build_args.get(KEEP_GIT, "").lower() in ("1", "t", "true")
            named[name], times[name] = await self._directory(where, ssh, keep_git=keep)
        main = named.pop("", request.context)
        file = request.dockerfile
        if "" in times:
            alone = os.listdir(main) == [DOCKERFILE]  # the page is the Dockerfile, whatever it was called
            own = _own_files(Path(main), file if isinstance(file, Path) and not alone else Path(DOCKERFILE))
            file = file if isinstance(file, bytes) else own
        return replace(request, context=main, dockerfile=file, contexts=named, images=images, times=times)

    async def _image(self, where: str) -> str:
        if where.startswith(IMAGE):
            return where.removeprefix(IMAGE).removeprefix("//")
        named, _, digest = where.removeprefix(LAYOUT).removeprefix("//").partition("@")
        place, tag = _tagged(named)
        with TemporaryFile() as packed:
            await finished(_pack, place, tag, packed.fileno())
            packed.seek(0)
            found = await self.images.load(packed)
        chosen = [image for image in found if digest in ("", str(image.digest))]
        if len(chosen) != 1:
            names = ", ".join(str(image.digest) for image in found) or "none"
            hint = "write :TAG, or @ and a digest"
            raise NotFound(f"{where} does not name one image; the layout has {names}", hint=hint)
        return str(chosen[0].id)

    async def _directory(self, where: str, ssh: str, *, keep_git: bool) -> tuple[Path, int]:
        """Return a directory with what is behind an address, and its time."""
        repository = parse_git(where)
        if repository is not None:
            if keep_git and repository.keep_git_dir is None:
                repository = replace(repository, keep_git_dir=True)
            return await self._repository(repository, ssh)
        if _URL.match(where) is None:
            raise InvalidArgument(f"{where} cannot be the build context itself", hint="give a directory or a URL")
        fetched = await self.downloads.fetch(where, "")
        place = private_directory(self.directory) / f"{fetched.path.parent.name}"
        if not place.exists():
            await asyncio.to_thread(self._unpack, fetched.path, place, fetched.modified)
        await asyncio.to_thread(remember, place, where)
        return place, int(place.stat().st_mtime)

    async def _repository(self, source: GitRef, ssh: str) -> tuple[Path, int]:
        check(source)
        if source.implicit:
            source = replace(source, remote=f"https://{source.remote}")
        top = await self.repositories.fetch(source, ssh=ssh)
        place = top / source.subdir
        if not place.resolve().is_relative_to(top.resolve()) or not place.is_dir():
            raise NotFound(f"{without_password(source.remote)} has no directory {source.subdir}")
        return place, int(top.stat().st_mtime)

    def _unpack(self, file: Path, place: Path, modified: int | None) -> None:
        """Make a directory of a download; it appears only when it is whole."""
        work = self.directory / f".{os.urandom(8).hex()}"
        work.mkdir(0o700)
        try:
            with open(file, "rb") as packed:
                if is_archive(packed):
                    apply(plain(packed), work, form=Form.PLAIN)
                else:
                    shutil.copyfile(file, work / DOCKERFILE)
            newest = max((int(path.lstat().st_mtime) for path in _files(work)), default=0)
            moment = newest if modified is None else modified
            os.utime(work, (moment, moment))
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _own_files(context: Path, dockerfile: Path) -> Path:
    """Return the Dockerfile of a context that a stranger made, after a look where its links lead.

    What these files say is shown in messages, so a link to a file of this machine would tell what is in it.
    """
    path = context / dockerfile
    for each in (path, path.with_name(f"{path.name}.dockerignore"), context / ".dockerignore"):
        if not Path(os.path.realpath(each)).is_relative_to(os.path.realpath(context)):
            raise InvalidArgument(f"`{each.name}` of the context leads outside of it")
    return path


def _files(place: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(place):
        for name in names:
            yield Path(directory) / name


def _tagged(named: str) -> tuple[Path, str]:
    """Split `DIRECTORY:TAG`, unless a directory has all of it as its name."""
    place, colon, tag = named.rpartition(":")
    return (Path(place), tag) if colon and "/" not in tag and not Path(named).is_dir() else (Path(named), "")


def _pack(layout: Path, tag: str, fd: int) -> None:
    """Write an OCI layout, or what a tag of it means, as a tar. Links are not followed: a layout has none."""
    with ExitStack() as stack:
        tar = TarWriter(stack.enter_context(open(os.dup(fd), "wb")))
        names = [layout / "index.json", *sorted((layout / "blobs").glob("*/*"))]
        for path in names:
            try:
                file = stack.enter_context(open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"))
            except OSError as error:
                raise NotFound(f"cannot read {path} of the OCI layout: {error.strerror}") from None
            if tag and path == names[0]:
                data = _only(tag, file.read(LIMIT), layout)
                tar.add(Entry(name=path.name, size=len(data)), BytesIO(data))
                continue
            tar.add(Entry(name=str(path.relative_to(layout)), size=os.fstat(file.fileno()).st_size), file)
        tar.close()


def _only(tag: str, index: bytes, layout: Path) -> bytes:
    """Return an index with nothing but what a tag means, and without names, which the store would take over."""
    entries = Index.decode(index).manifests
    chosen = [replace_fields(entry, annotations={}) for entry in entries if entry.annotations.get(REF_NAME) == tag]
    if not chosen:
        tags = [name for entry in entries if (name := entry.annotations.get(REF_NAME))]
        close = nearest(tag, tags)
        hint = f"did you mean `{close}`?" if close else f"it has {', '.join(tags) or 'none'}"
        raise NotFound(f"the OCI layout {layout} has no tag `{tag}`", hint=hint)
    return Index.of(chosen).encode()
