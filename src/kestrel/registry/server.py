"""The door: which request goes to which endpoint, who may, and how every refusal looks.

Repository names have slashes, so paths are taken apart from the right: `/v2/<name>/manifests/<reference>`. A manifest
that is in memory is answered before any of that, once it is clear that the client may have it. Endpoints raise
`Refusal`, or errors of ours from below; both become the spec's JSON here and nowhere else.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from kestrel.base.db import Database
from kestrel.base.errors import KestrelError
from kestrel.content import Store
from kestrel.oci.reference import is_repository
from kestrel.registry.access import DELETE, PULL, PUSH, Accounts, Gate, Principal, Wanted
from kestrel.registry.access.accounts import AccountStore, SqliteAccounts
from kestrel.registry.access.token_server import TokenServer
from kestrel.registry.blobs import Blobs
from kestrel.registry.cache import ManifestCache
from kestrel.registry.cached import CachedRepositories
from kestrel.registry.errors import API_VERSION, Refusal, response
from kestrel.registry.listing import Listing
from kestrel.registry.manifests import Manifests
from kestrel.registry.metadata import Metadata
from kestrel.registry.metrics import CONTENT_TYPE, Metrics
from kestrel.registry.repositories import Repositories
from kestrel.registry.settings import Settings
from kestrel.registry.sqlite import SqliteMetadata
from kestrel.registry.through import Cached, PullThrough, Upstream
from kestrel.registry.uploads import Uploads, parse_digest
from kestrel.registry.whole import Whole

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
_NEEDS: Final = {"": (), PULL: (PULL,), PUSH: (PULL, PUSH), DELETE: (DELETE,)}
"""What a client is told to ask for. Who pushes looks first whether a blob is there."""
_CONNECTION_GONE: Final = 499
"""Counted as the status of an answer that nobody waited for (nginx's word for it)."""

Act = Callable[[Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint: its name in the metrics, the repository it is in, and for each method what one must be allowed."""

    endpoint: str
    repository: str
    methods: dict[str, tuple[str, Act]]


class Registry:
    """An OCI registry over a content store. `handle` answers one request; `repositories` is what it keeps."""

    def __init__(
        self,
        content: Store,
        database: Database,
        settings: "Settings | None" = None,
        upstream: "Upstream | None" = None,
        *,
        metadata: "Metadata | None" = None,
        accounts: "AccountStore | None" = None,
    ) -> None:
        """Keep rows in `database`, but for what `metadata` and `accounts` keep elsewhere."""
        self.settings = settings = settings or Settings()
        metadata = metadata or SqliteMetadata(database)
        self.repositories = Repositories(
            metadata,
            content,
            sparse=settings.sparse,
            unnamed_seconds=settings.unnamed_seconds,
            undo_seconds=settings.undo_seconds,
        )
        self.accounts = Accounts(accounts or SqliteAccounts(database), settings.htpasswd)
        self.metrics = Metrics()
        self._content = content
        self._gate = Gate(self.accounts, url=settings.url)
        self._token_server = TokenServer(self._gate, idle_seconds=settings.idle_seconds)
        self.cached = CachedRepositories(metadata, content, self.repositories)
        self._through = PullThrough(
            self.repositories, self.cached, content, self.metrics, upstream, fresh_seconds=settings.fresh_seconds
        )
        self._blobs = Blobs(self.repositories, content, self._through)
        self._uploads = Uploads(self.repositories, content, idle_seconds=settings.idle_seconds)
        cache = ManifestCache(settings.manifest_cache)
        self._manifests = Manifests(self.repositories, cache, self._through, idle_seconds=settings.idle_seconds)
        self._listing = Listing(self.repositories, self._through, settings)

    @property
    def open_to_all(self) -> bool:
        """Whether nobody has to log in."""
        return self._gate.open

    def application(self) -> web.Application:
        """Return an aiohttp application, to be joined with other doors; `handle` alone is faster."""
        application = web.Application()
        for path in ("/v2", "/v2/{rest:.*}", "/token", "/metrics"):
            application.router.add_route("*", path, self.handle)
        return application

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises an error of ours."""
        if request.method in ("GET", "HEAD") and (ready := self._manifests.ready(request)) is not None:
            principal = self._gate.remembered(request.headers.get("Authorization", ""))
            if principal is not None and principal.may(PULL, ready.repository):
                answer = self._manifests.answer(request, ready)
                self.metrics.request(request.method, "manifest", answer.status, len(ready.data))
                return answer
        endpoint = "other"
        try:
            route = self._route(request)
            endpoint = route.endpoint
            answer = await self._act(request, route)
        except Refusal as refusal:
            answer = response(refusal)
        except KestrelError as error:
            if error.kind in ("internal", "unavailable", "resource-exhausted"):
                _log.warning("%s %s: %s", request.method, request.path, error)
            answer = response(Refusal.of(error))
        except asyncio.CancelledError:
            self.metrics.request(request.method, endpoint, _CONNECTION_GONE, 0)
            raise
        self.metrics.request(request.method, endpoint, answer.status, _length(answer))
        return answer

    async def close(self) -> None:
        """Stop what goes on without a request: downloads for the cache."""
        await self._through.close()

    def tidy(self) -> None:
        """Forget what nobody finished or named; call now and then, before a collection."""
        self._content.expire_uploads(self.settings.upload_seconds)
        self.repositories.tidy()

    async def _act(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        method = "GET" if request.method == "HEAD" else request.method
        chosen = route.methods.get(method)
        if chosen is None:
            allowed = ", ".join([*route.methods, *(["HEAD"] if "GET" in route.methods else [])])
            raise Refusal("UNSUPPORTED", f"{request.method} is not possible here", headers={"Allow": allowed})
        action, act = chosen
        if route.endpoint in ("token", "catalog"):
            return await act(await self._gate.principal(request) if route.endpoint == "catalog" else _NOBODY)
        source = request.query.get("from", "") if route.endpoint == "upload" else ""
        wanted = Wanted(route.repository, _NEEDS[action], source if is_repository(source) else "")
        return await act(await self._gate.admit(request, wanted))

    def _route(self, request: web.BaseRequest) -> Route:
        """Return what can be done at a path; raises Refusal when it is no endpoint at all."""
        path = request.path
        if path in ("/v2/", "/v2"):
            return Route("base", "", {"GET": ("", _base)})
        if path == "/token":
            get, post = self._token_server.get, self._token_server.post
            return Route("token", "", {"GET": ("", lambda _: get(request)), "POST": ("", lambda _: post(request))})
        if path == "/metrics":
            return Route("metrics", "", {"GET": ("", self._metrics_text)})
        if path == "/v2/_catalog":
            return Route("catalog", "", {"GET": (PULL, lambda who: self._listing.catalog(request, who))})
        match = _ENDPOINT.fullmatch(path)
        if match is None:
            raise Refusal("NAME_UNKNOWN", f"there is nothing at {path[:200]!r}")
        name = match["name"]
        if not is_repository(name):
            raise Refusal("NAME_INVALID", f"invalid repository name {name[:300]!r}", detail={"name": name[:300]})
        cached = self._through.locate(name, request.query.get("ns", ""))
        if cached is not None:
            return self._of_cached(request, cached, match)
        return self._of_repository(request, name, match)

    def _of_cached(self, request: web.BaseRequest, cached: Cached, match: "re.Match[str]") -> Route:
        """Return what can be done where only upstream decides what there is: everything but pushing."""
        name = cached.name
        route = self._of_repository(request, name, match)
        if match["uploads"]:
            raise Refusal("UNSUPPORTED", f"{name} is a cache of {cached.ref.name}: push there")
        methods = {method: acts for method, acts in route.methods.items() if method != "PUT"}
        if match["blob"]:
            digest = parse_digest(match["blob"])
            methods["GET"] = PULL, lambda _: self._blobs.get(request, name, digest, cached)
        elif version := match["version"]:
            methods["GET"] = PULL, lambda _: self._manifests.get_cached(request, cached, version)
        elif match["tags"]:
            methods["GET"] = PULL, lambda _: self._listing.tags(request, name, cached)
        return Route(route.endpoint, name, methods)

    def _of_repository(self, request: web.BaseRequest, name: str, match: "re.Match[str]") -> Route:
        if match["uploads"]:
            return Route("upload", name, self._of_uploads(request, name, match["id"]))
        if match["blob"]:
            digest = parse_digest(match["blob"])
            return Route(
                "blob",
                name,
                {
                    "GET": (PULL, lambda _: self._blobs.get(request, name, digest)),
                    "DELETE": (DELETE, lambda _: self._blobs.delete(name, digest)),
                },
            )
        if version := match["version"]:
            return Route(
                "manifest",
                name,
                {
                    "GET": (PULL, lambda _: self._manifests.get(request, name, version)),
                    "PUT": (PUSH, lambda who: self._manifests.put(request, name, version, who.name)),
                    "DELETE": (DELETE, lambda who: self._manifests.delete(request, name, version, who.name)),
                },
            )
        if match["subject"]:
            subject = parse_digest(match["subject"])
            return Route("referrers", name, {"GET": (PULL, lambda _: self._listing.referrers(request, name, subject))})
        return Route("tags", name, {"GET": (PULL, lambda _: self._listing.tags(request, name))})

    def _of_uploads(self, request: web.BaseRequest, name: str, upload_id: str) -> dict[str, tuple[str, Act]]:
        if not upload_id:
            return {"POST": (PUSH, lambda who: self._uploads.begin(request, name, who))}
        return {
            "GET": (PUSH, lambda _: self._uploads.status(name, upload_id)),
            "PATCH": (PUSH, lambda _: self._uploads.append(request, name, upload_id)),
            "PUT": (PUSH, lambda _: self._uploads.finish(request, name, upload_id)),
            "DELETE": (PUSH, lambda _: self._uploads.cancel(name, upload_id)),
        }

    async def _metrics_text(self, _: Principal) -> web.StreamResponse:
        counts = await asyncio.to_thread(self.repositories.counts)
        return web.Response(body=self.metrics.text(counts), headers={"Content-Type": CONTENT_TYPE})


def _length(answer: web.StreamResponse) -> int:
    return len(answer.data) if isinstance(answer, Whole) else answer.content_length or 0


_NOBODY = Principal("")


async def _base(_: Principal) -> web.StreamResponse:
    return web.Response(body=b"{}", headers={**API_VERSION, "Content-Type": "application/json"})
