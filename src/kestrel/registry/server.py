"""The door: which request goes to which endpoint, and how every refusal looks.

Repository names have slashes, so paths are taken apart from the right: `/v2/<name>/manifests/<reference>`. A manifest
that is in memory is answered before any of that. Endpoints raise `Refusal`, or errors of ours from below; both become
the spec's JSON here and nowhere else.
"""

import logging
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from kestrel.base.db import Database
from kestrel.base.errors import KestrelError
from kestrel.content import Store
from kestrel.oci.reference import is_repository
from kestrel.registry.blobs import Blobs
from kestrel.registry.cache import ManifestCache
from kestrel.registry.errors import API_VERSION, Refusal, response
from kestrel.registry.listing import Listing
from kestrel.registry.manifests import Manifests
from kestrel.registry.repositories import Repositories
from kestrel.registry.settings import Settings
from kestrel.registry.sqlite import SqliteMetadata
from kestrel.registry.uploads import Uploads, parse_digest

_log = logging.getLogger(__name__)
_ENDPOINT = re.compile(
    r"/v2/(?P<name>.+?)/(?:"
    r"(?P<uploads>blobs/uploads)/?(?P<id>[^/]*)"
    r"|blobs/(?P<blob>[^/]+)"
    r"|manifests/(?P<version>[^/]+)"
    r"|(?P<tags>tags/list)"
    r"|referrers/(?P<subject>[^/]+)"
    r")"
)
Answer = Awaitable[web.StreamResponse]
Methods = dict[str, Callable[[], Answer]]


class Registry:
    """An OCI registry over a content store. `handle` answers one request; `repositories` is what it keeps."""

    def __init__(self, content: Store, database: Database, settings: "Settings | None" = None) -> None:
        self.settings = settings = settings or Settings()
        self.repositories = Repositories(
            SqliteMetadata(database),
            content,
            sparse=settings.sparse,
            unnamed_seconds=settings.unnamed_seconds,
            undo_seconds=settings.undo_seconds,
        )
        self._content = content
        self._blobs = Blobs(self.repositories, content)
        self._uploads = Uploads(self.repositories, content, idle_seconds=settings.idle_seconds)
        cache = ManifestCache(settings.manifest_cache)
        self._manifests = Manifests(self.repositories, cache, idle_seconds=settings.idle_seconds)
        self._listing = Listing(self.repositories, settings)

    def application(self) -> web.Application:
        """Return an aiohttp application, to be joined with other doors; `handle` alone is faster."""
        application = web.Application()
        application.router.add_route("*", "/v2", self.handle)
        application.router.add_route("*", "/v2/{rest:.*}", self.handle)
        return application

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises an error of ours."""
        if request.method in ("GET", "HEAD"):
            cached = self._manifests.cached(request)
            if cached is not None:
                return cached
        try:
            return await self._route(request)
        except Refusal as refusal:
            return response(refusal)
        except KestrelError as error:
            if error.kind in ("internal", "unavailable", "resource-exhausted"):
                _log.warning("%s %s: %s", request.method, request.path, error)
            return response(Refusal.of(error))

    def tidy(self) -> None:
        """Forget what nobody finished or named; call now and then, before a collection."""
        self._content.expire_uploads(self.settings.upload_seconds)
        self.repositories.tidy()

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        methods = self._methods(request, path)
        if methods is None:
            raise Refusal("NAME_UNKNOWN", f"there is nothing at {path[:200]!r}")
        method = "GET" if request.method == "HEAD" else request.method
        chosen = methods.get(method)
        if chosen is None:
            allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
            raise Refusal("UNSUPPORTED", f"{request.method} is not possible here", headers={"Allow": allowed})
        return await chosen()

    def _methods(self, request: web.BaseRequest, path: str) -> "Methods | None":
        """Return what can be done at a path, None when it is no endpoint at all."""
        if path in ("/v2/", "/v2"):
            return {"GET": _base}
        if path == "/v2/_catalog":
            return {"GET": lambda: self._listing.catalog(request)}
        match = _ENDPOINT.fullmatch(path)
        if match is None:
            return None
        name = match["name"]
        if not is_repository(name):
            raise Refusal("NAME_INVALID", f"invalid repository name {name[:300]!r}", detail={"name": name[:300]})
        return self._of_repository(request, name, match)

    def _of_repository(self, request: web.BaseRequest, name: str, match: "re.Match[str]") -> Methods:
        if match["uploads"]:
            return self._of_uploads(request, name, match["id"])
        if match["blob"]:
            digest = parse_digest(match["blob"])
            return {
                "GET": lambda: self._blobs.get(request, name, digest),
                "DELETE": lambda: self._blobs.delete(name, digest),
            }
        if version := match["version"]:
            return {
                "GET": lambda: self._manifests.get(request, name, version),
                "PUT": lambda: self._manifests.put(request, name, version, ""),
                "DELETE": lambda: self._manifests.delete(request, name, version, ""),
            }
        if match["subject"]:
            subject = parse_digest(match["subject"])
            return {"GET": lambda: self._listing.referrers(request, name, subject)}
        return {"GET": lambda: self._listing.tags(request, name)}

    def _of_uploads(self, request: web.BaseRequest, name: str, upload_id: str) -> Methods:
        if not upload_id:
            return {"POST": lambda: self._uploads.begin(request, name)}
        return {
            "GET": lambda: self._uploads.status(name, upload_id),
            "PATCH": lambda: self._uploads.append(request, name, upload_id),
            "PUT": lambda: self._uploads.finish(request, name, upload_id),
            "DELETE": lambda: self._uploads.cancel(name, upload_id),
        }


async def _base() -> web.StreamResponse:
    return web.Response(body=b"{}", headers={**API_VERSION, "Content-Type": "application/json"})
