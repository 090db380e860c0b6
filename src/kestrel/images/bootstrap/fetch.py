"""Files from Debian archives: fetched once, checked, kept by digest.

Plain urllib in a few threads: archives speak HTTP/1.1 and the files are many and small. Proxies are those of apt's
configuration, else those of the environment. A file enters the cache only after its sha256 was right, under the name
of that digest, so what is in the cache needs no second look.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.response import addinfourl

from kestrel.base.errors import DataLoss, NotFound, Unavailable
from kestrel.base.files import private_directory
from kestrel.images.bootstrap.model import Progress, Report
from kestrel.images.bootstrap.sources import public

_TIMEOUT = 30.0
_ATTEMPTS = 3
_THREADS = 6
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file whose bytes are known beforehand: where it is, and what it must be."""

    uri: str
    sha256: str
    size: int
    label: str


class Fetcher:
    """Fetches for one bootstrap. `cache` is a directory; files in it are named by their sha256."""

    def __init__(self, cache: Path, proxies: Mapping[str, str], report: Report) -> None:
        self._cache = private_directory(cache)
        self._proxies = dict(proxies)
        self._report = report

    def text(self, uri: str, label: str, limit: int = 16 << 20) -> bytes:
        """Return the bytes of a file that carries its own signature; `limit` bounds them.

        Raises NotFound for a 404 and Unavailable when the archive cannot be reached.
        """
        data = bytearray()
        self._report(Progress(id=label, status="fetching"))
        with self._open(uri) as answer:
            while chunk := self._read(answer, uri):
                data += chunk
                if len(data) > limit:
                    raise DataLoss(f"{public(uri)} is larger than {limit} bytes")
        return bytes(data)

    def all(self, wanted: Iterable[Wanted]) -> dict[str, Path]:
        """Fetch every file not in the cache yet, some at a time; returns the paths by sha256.

        The first failure ends the others and is raised.
        """
        unique = {item.sha256: item for item in wanted}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="kestrel-fetch") as pool:
            futures: dict[str, Future[Path]] = {sha: pool.submit(self.file, item) for sha, item in unique.items()}
            _, open_ones = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in open_ones:
                future.cancel()
        failures = [f.exception() for f in futures.values() if f.done() and not f.cancelled() and f.exception()]
        for failure in failures:
            if failure is not None:
                raise failure
        return {sha: future.result() for sha, future in futures.items()}

    def file(self, item: Wanted) -> Path:
        """Return the path of one verified file, fetching it when it is not in the cache.

        Raises DataLoss when the bytes are not those promised, naming the file.
        """
        path = self._cache / item.sha256
        if path.exists():
            self._report(Progress(id=item.label, status="cached", current=item.size, total=item.size))
            return path
        temporary = self._cache / f".{item.sha256}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            self._retrying(lambda: self._download(item, temporary))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _download(self, item: Wanted, target: Path) -> None:
        digest = hashlib.sha256()
        count = 0
        with self._open(item.uri) as answer, target.open("wb") as file:
            while count <= item.size and (chunk := self._read(answer, item.uri)):
                digest.update(chunk)
                count += len(chunk)
                file.write(chunk)
                self._report(Progress(id=item.label, status="fetching", current=count, total=item.size))
        if count < item.size:
            raise Unavailable(f"{public(item.uri)} ended after {count} of {item.size} bytes")
        if count > item.size or digest.hexdigest() != item.sha256:
            raise DataLoss(
                f"{public(item.uri)} is not the file its signed index promises (sha256 {item.sha256})",
                hint="the mirror or a proxy on the way changed it or is in the middle of an update; try again later",
            )

    def _retrying(self, action: Callable[[], None]) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                return action()
            except Unavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.5 * 2**attempt)
        return None

    @staticmethod
    def _read(answer: addinfourl, uri: str) -> bytes:
        try:
            return bytes(answer.read(_CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the connection broke while reading {public(uri)}: {error}") from error

    def _open(self, uri: str) -> addinfourl:
        opener = urllib.request.build_opener(self._proxy_handler(uri))
        request = urllib.request.Request(uri, headers={"User-Agent": "kestrel", "Accept-Encoding": "identity"})
        try:
            answer: addinfourl = opener.open(request, timeout=_TIMEOUT)
            return answer
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise NotFound(f"{public(uri)} does not exist on its mirror", uri=uri) from None
            raise Unavailable(f"{public(uri)}: the mirror answers {error.code} {error.reason}") from error
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"cannot reach {urlsplit(uri).hostname or uri} for Debian packages: {reason}",
                hint="check the network and the proxy settings of apt (apt-get update must work)",
            ) from error

    def _proxy_handler(self, uri: str) -> urllib.request.ProxyHandler:
        parts = urlsplit(uri)
        named = self._proxies.get(f"{parts.scheme}::{parts.hostname}") or self._proxies.get(parts.scheme)
        if named is None:
            return urllib.request.ProxyHandler()  # the environment's
        return urllib.request.ProxyHandler({} if named.upper() == "DIRECT" else {parts.scheme: named})
