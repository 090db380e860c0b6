"""Tags, repositories and referrers, page by page (distribution-spec, "Listing Tags", "Listing Referrers")."""

import asyncio
import json
from urllib.parse import quote

from aiohttp import web

from kestrel.oci import media_types
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index
from kestrel.registry.access.model import PULL, Principal
from kestrel.registry.errors import API_VERSION, Refusal
from kestrel.registry.repositories import Repositories
from kestrel.registry.settings import Settings
from kestrel.registry.through import Cached, PullThrough


class Listing:
    """The listing endpoints of the door."""

    def __init__(self, repositories: Repositories, through: PullThrough, settings: Settings) -> None:
        self._repositories = repositories
        self._through = through
        self._settings = settings

    async def tags(self, request: web.BaseRequest, name: str, cached: "Cached | None" = None) -> web.StreamResponse:
        """GET `/v2/<name>/tags/list`; of a cached repository the tags that upstream has, if it can be asked."""
        count, after = self._count(request, self._settings.largest_page), request.query.get("last", "")
        theirs = await self._through.tags(cached) if cached else None
        if theirs is not None:
            found = [tag for tag in theirs if tag > after][: count + 1]
            return _page({"name": name, "tags": found[:count]}, f"/v2/{name}/tags/list", found, count)
        if not await asyncio.to_thread(self._repositories.exists, name):
            raise Refusal("NAME_UNKNOWN", f"there is no repository {name}", detail={"name": name})
        found = await asyncio.to_thread(self._repositories.tags, name, after, count + 1)
        return _page({"name": name, "tags": found[:count]}, f"/v2/{name}/tags/list", found, count)

    async def catalog(self, request: web.BaseRequest, who: Principal) -> web.StreamResponse:
        """GET `/v2/_catalog`: the repositories that this client may read."""
        count = self._count(request, self._settings.largest_page)
        found = await asyncio.to_thread(self._readable, who, request.query.get("last", ""), count + 1)
        return _page({"repositories": found[:count]}, "/v2/_catalog", found, count)

    async def referrers(self, request: web.BaseRequest, name: str, subject: Digest) -> web.StreamResponse:
        """GET `/v2/<name>/referrers/<digest>`: an index, empty when there are none, whatever the name."""
        found = await asyncio.to_thread(self._repositories.referrers, name, subject)
        headers = {**API_VERSION, "Content-Type": media_types.OCI_INDEX}
        wanted = request.query.get("artifactType", "")
        if wanted:
            found = [entry for entry in found if entry.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        after, count = request.query.get("last", ""), self._count(request, self._settings.page)
        rest = [entry for entry in found if entry.digest > after]
        if len(rest) > count > 0:
            more = f"&artifactType={quote(wanted)}" if wanted else ""
            last = rest[count - 1].digest
            headers["Link"] = f'</v2/{name}/referrers/{subject}?n={count}&last={last}{more}>; rel="next"'
        return web.Response(body=Index.of(rest[:count]).encode(), headers=headers)

    def _readable(self, who: Principal, after: str, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            names = self._repositories.catalog(after, count)
            found += [name for name in names if who.may(PULL, name)]
            if len(names) < count:
                break
            after = names[-1]
        return found[:count]

    def _count(self, request: web.BaseRequest, usual: int) -> int:
        text = request.query.get("n")
        if text is None:
            return usual
        if not text.isascii() or not text.isdigit():
            raise Refusal("UNSUPPORTED", f"n must be a number, not {text[:40]!r}", status=400)
        return min(int(text[:9]), self._settings.largest_page)


def _page(document: dict[str, object], path: str, found: list[str], count: int) -> web.Response:
    headers = {**API_VERSION, "Content-Type": "application/json"}
    if len(found) > count > 0:
        headers["Link"] = f'<{path}?n={count}&last={quote(found[count - 1], safe="")}>; rel="next"'
    return web.Response(body=json.dumps(document).encode(), headers=headers)
