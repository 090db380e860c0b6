"""Files behind URLs, for ADD: fetched over http(s), checked, and kept by digest until the builder starts again.

The key of such a step is the digest of what the URL holds now. A server that says "not modified" to the validator
it gave before saves the transfer; a `--checksum` that we have saves the question too.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kestrel.base.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from kestrel.base.files import private_directory
from kestrel.build.tree import Tree
from kestrel.http import client as http

LIMIT = 16 << 30
"""Most bytes of one download."""

UNNAMED = "__unnamed__"
"""What a file is called whose URL ends with a slash, as docker has it; a destination that is a name wins."""


Get = Callable[[str, dict[str, str]], "AbstractAsyncContextManager[Answer]"]
"""Opens a URL with request headers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: status, validator (ETag), the body in pieces, and its time in seconds if it says one."""

    status: int
    validator: str
    pieces: AsyncIterator[bytes]
    modified: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file as it was fetched: where it is kept, the name its URL gives it, and its time as the server has it."""

    path: Path
    name: str
    modified: int | None = None


@asynccontextmanager
async def over_http(url: str, headers: dict[str, str]) -> AsyncIterator[Answer]:
    """Open a URL with a session of its own: ADD of a URL is rare. Raises KestrelError when nobody answers."""
    try:
        session = http.session()
        async with session, session.get(url, headers=headers, proxy=http.proxy_for(url)) as response:
            tag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
            yield Answer(response.status, tag, response.content.iter_chunked(1 << 20), _seconds(modified))
    except http.CLIENT_ERRORS as error:
        raise http.explain(error, url) from error


def _seconds(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None


class Downloads:
    """The kept files. `get` does the wire; the builder's owner gives it."""

    def __init__(self, directory: Path, get: Get) -> None:
        self._directory = private_directory(directory)
        self._get = get
        self._validators: dict[str, tuple[str, Path]] = {}

    async def fetch(self, url: str, checksum: str) -> Fetched:
        """Return the file behind a URL. Raises KestrelError that names the URL."""
        name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
        if "\0" in name:
            raise InvalidArgument(f"the name of {url} has a zero byte", hint="name another file, or use curl in a RUN")
        if name in ("", ".", ".."):
            name = UNNAMED
        if checksum and (kept := self._place(checksum, name) / name).exists():
            return Fetched(path=kept, name=name)
        return await self._download(url, name, checksum)

    def tree(self, fetched: Fetched) -> Tree:
        """Return a tree with that one file, under the name its URL gives it."""
        return Tree(os.open(fetched.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name="the download")

    def _place(self, digest: str, name: str) -> Path:
        """One directory for each digest and name: the tree has just this file."""
        return self._directory / f"{digest.replace(':', '-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    async def _download(self, url: str, name: str, checksum: str) -> Fetched:
        validator, before = self._validators.get(url, ("", Path()))
        headers = {"If-None-Match": validator} if validator and before.exists() and not checksum else {}
        async with self._get(url, headers) as answer:
            if answer.status == 304 and headers:
                return Fetched(path=before, name=name)
            if answer.status == 404:
                raise NotFound(f"{url} does not exist (404)")
            if answer.status != 200:
                raise Unavailable(f"{url} was answered with {answer.status}")
            path = await self._keep(url, name, checksum, answer)
            if answer.validator:
                self._validators[url] = (answer.validator, path)
            return Fetched(path=path, name=name, modified=answer.modified)

    async def _keep(self, url: str, name: str, checksum: str, answer: Answer) -> Path:
        algorithm = checksum.partition(":")[0] or "sha256"
        hasher, size = hashlib.new(algorithm), 0
        temporary = self._directory / f".{os.urandom(8).hex()}"
        try:
            with open(temporary, "xb") as file:
                async for piece in answer.pieces:
                    size += len(piece)
                    if size > LIMIT:
                        raise ResourceExhausted(f"{url} is larger than {LIMIT} bytes")
                    hasher.update(piece)
                    await asyncio.to_thread(file.write, piece)
            digest = f"{algorithm}:{hasher.hexdigest()}"
            if checksum and digest != checksum:
                raise DataLoss(
                    f"{url} has the digest {digest}, not {checksum}",
                    hint="the file changed or is not the one that was meant",
                )
            place = private_directory(self._place(digest, name))
            os.chmod(temporary, 0o600)
            temporary.rename(place / name)
            return place / name
        finally:
            temporary.unlink(missing_ok=True)
