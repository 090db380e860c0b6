"""One request to a registry, done properly: endpoint, authorisation, redirects, retries, errors.

What is repeated: requests that changed nothing by failing (GET, HEAD, PUT of content named by its digest), after a
broken connection or a status that says "not now" (408, 429, 500, 502, 503, 504), with a pause that doubles, has
jitter, and is at least what Retry-After asks for. What is not: a refused connection, a name that does not resolve, a
certificate nobody trusts; those are told at once.

A name may have several hosts (see `hosts`): mirrors are asked once each, and the registry's own answer is the final
one. A mirror that could not be reached is left alone for a while.

A redirect may lead anywhere (registries hand blobs to object stores), but Authorization goes only to the server it
was made for, and TLS is never left for plain HTTP.
"""

import asyncio
import io
import random
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.errors import KestrelError, TimedOut, Unavailable
from kestrel.distribution.auth import Authorizer
from kestrel.distribution.challenges import parse
from kestrel.distribution.credentials import Credentials
from kestrel.distribution.hosts import Endpoint, Hosts, Settings
from kestrel.distribution.mirrors import PULL, PUSH, RESOLVE, Host
from kestrel.distribution.refusals import not_a_registry, refusal, retry_after
from kestrel.http.client import CLIENT_ERRORS, explain, proxy_for

_NOT_NOW = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 10
_REST = 30.0  # seconds
_NEXT = re.compile(r"<([^>]*)>\s*;(?:[^,]*;)?\s*rel=\"?next\"?", re.IGNORECASE)
_ERROR_BODY = 64 * 1024
_PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=600)
"""For a PUT: after the last byte the registry may hash, copy or move the whole blob before it answers."""
Sleep = Callable[[float], "asyncio.Future[None] | Any"]
Body = Callable[[], "AsyncIterator[bytes] | bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to ask. `path` is below `/v2/` of the registry, or a whole URL (a Location); `what` names it for people."""

    method: str
    domain: str
    path: str
    what: str
    repository: str = ""
    scopes: Collection[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: "Body | None" = None
    """Called anew for each attempt, as a stream can be sent once only."""
    size: int = 0
    """Of the body, in bytes."""
    good: Collection[int] = (200,)
    repeatable: bool = True

    @property
    def capability(self) -> str:
        """What a host has to be able to do to be asked (containerd docs/hosts.md, "capabilities field")."""
        if self.method not in ("GET", "HEAD") or any(scope.endswith(",push") for scope in self.scopes):
            return PUSH  # also what a push asks on its way: whether its own registry has a blob, how far an upload came
        content = "/blobs/" in self.path or ("/manifests/" in self.path and ":" in self.path.rpartition("/")[2])
        return PULL if content else RESOLVE


class Transport:
    """Sends calls to registries with one session and one set of credentials."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        credentials: Credentials,
        hosts: Hosts,
        settings: Settings,
        clock: "Clock | None" = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self._session = session
        self._hosts = hosts
        self._clock = clock or SystemClock()
        self._authorizer = Authorizer(session, credentials, self._clock)
        self._sleep = sleep
        self._jitter = random.Random()  # spreads retries, guards nothing
        self._resting: dict[Host, float] = {}

    def with_credentials(self, credentials: Credentials) -> "Transport":
        """Return a transport that is somebody else: same connections, its own tokens."""
        return Transport(
            self._session,
            credentials=credentials,
            hosts=self._hosts,
            settings=self.settings,
            clock=self._clock,
            sleep=self._sleep,
        )

    @asynccontextmanager
    async def send(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send, and yield the open answer when its status is one of `call.good`.

        Raises the error that the final answer stands for, or why there was none.
        """
        failures: list[str] = []
        try:
            endpoint, answer = await self._ask(call, failures)
        except KestrelError as error:
            raise _with_mirrors(error, failures)  # noqa: B904 - the same error, its remedy made longer
        try:
            if answer.status not in call.good:
                raise _with_mirrors(await self._refused(call, endpoint, answer), failures)
            yield answer
        except CLIENT_ERRORS as error:
            raise explain(error, str(answer.url)) from error
        finally:
            answer.close() if answer.content and not answer.content.at_eof() else answer.release()

    async def fetch(self, call: Call, limit: int) -> tuple[int, Mapping[str, str], bytes]:
        """Send and read the whole answer, at most `limit` bytes; a body that breaks off is asked for again."""
        for attempt in range(1, self.settings.attempts + 1):
            try:
                async with self.send(call) as answer:
                    return answer.status, answer.headers, await bounded(answer, limit, call)
            except (Unavailable, TimedOut) as error:
                broke_off = isinstance(error.__cause__, CLIENT_ERRORS)
                if not (broke_off and call.repeatable) or attempt == self.settings.attempts:
                    raise
                await self.pause(attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def elsewhere(self, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """GET a URL that is not the registry's, as nobody, following redirects. Raises what `CLIENT_ERRORS` names."""
        return await self._session.get(URL(url), headers=headers, proxy=proxy_for(url))

    async def pause(self, attempt: int, at_least: float = 0.0) -> None:
        """Wait before the next attempt: between half and all of a time that doubles, or what the server asked for."""
        longest = min(self.settings.backoff_seconds * 2 ** (attempt - 1), self.settings.longest_wait_seconds)
        pause = longest * self._jitter.uniform(0.5, 1.0)
        if at_least:
            pause = at_least + self._jitter.uniform(0, min(1.0, self.settings.backoff_seconds))
        await self._sleep(pause)

    async def _ask(self, call: Call, failures: list[str]) -> tuple[Endpoint, aiohttp.ClientResponse]:
        """Return the answer to use or report: the first good one of a mirror, else the registry's own."""
        *mirrors, last = self._hosts.of(call.domain, call.repository, call.capability)
        for host in mirrors:
            if self._resting.get(host, 0.0) > self._clock.monotonic():
                failures.append(f"{host.address}: could not be reached a moment ago")
                continue
            try:
                endpoint = await self._endpoint(host)
                answer = await self._authorised(call, endpoint)
            except (KestrelError, *CLIENT_ERRORS) as error:
                failures.append(f"{host.address}: {explain(error, host.address)}")
                self._resting[host] = self._clock.monotonic() + _REST
                continue
            if answer.status in call.good:
                return endpoint, answer
            failures.append(f"{host.address}: answered {answer.status}")
            answer.close()
        endpoint = await self._endpoint(last)
        return endpoint, await self._until_final(call, endpoint)

    async def _until_final(self, call: Call, endpoint: Endpoint) -> aiohttp.ClientResponse:
        """Return the answer that is to be used or reported, after authorising and repeating as far as that helps."""
        attempt = 1
        while True:
            wait = 0.0
            try:
                answer = await self._authorised(call, endpoint)
            except CLIENT_ERRORS as error:
                if not self._worth_repeating(call, error, attempt):
                    raise explain(error, endpoint.base) from error
            else:
                asked = retry_after(answer.headers, self._clock)
                wait = asked or 0.0
                final = answer.status not in _NOT_NOW or attempt >= self.settings.attempts or not call.repeatable
                if final or wait > self.settings.longest_wait_seconds:
                    return answer
                answer.close()
            await self.pause(attempt, wait)
            attempt += 1

    def _worth_repeating(self, call: Call, error: BaseException, attempt: int) -> bool:
        if not call.repeatable or attempt >= self.settings.attempts:
            return False
        return not isinstance(error, aiohttp.ClientConnectorError)  # never connected: refused, no name, no trust

    async def _authorised(self, call: Call, endpoint: Endpoint) -> aiohttp.ClientResponse:
        """Send with what the registry is known to want; after a 401, once more with what it asks for."""
        repository, scopes = endpoint.renamed(call.repository), [endpoint.scope(scope) for scope in call.scopes]
        for last in (False, True):
            header = await self._authorizer.authorization(endpoint, repository, scopes)
            answer = await self._redirected(call, endpoint, header)
            if answer.status != 401 or last or answer.method != call.method:
                return answer
            challenges = parse(answer.headers.getall("WWW-Authenticate", []))
            if not _same_server(URL(endpoint.base), answer.url):
                return answer  # some other server's challenge is none of our credentials' business
            if not self._authorizer.challenged(endpoint, challenges, header):
                return answer
            answer.close()
        raise AssertionError("unreachable: the second round returns")

    async def _redirected(self, call: Call, endpoint: Endpoint, authorization: str) -> aiohttp.ClientResponse:
        home = URL(endpoint.base)
        url = _absolute(call.path, endpoint)
        method, body = call.method, call.body
        for _ in range(_MOST_REDIRECTS):
            headers = dict(call.headers)
            at_home = _same_server(home, url)
            if at_home:
                headers |= {"Authorization": authorization} if authorization else {}
                headers |= endpoint.host.headers
            tls, patience = (endpoint.tls, endpoint.host.connect_seconds) if at_home else (True, None)
            answer = await self._once(method, url, headers, body, call.size, tls, patience)
            target = _redirect(answer)
            if target is None:
                return answer
            if url.scheme == "https" and target.scheme != "https" and endpoint.tls is not False:
                return answer  # reported as a redirect that cannot be followed
            answer.close()
            if answer.status == 303 and method != "HEAD":
                method, body = "GET", None
            url = target
        return answer

    async def _once(
        self,
        method: str,
        url: URL,
        headers: dict[str, str],
        body: "Body | None" = None,
        size: int = 0,
        tls: Any = True,
        connect_seconds: "float | None" = None,
    ) -> aiohttp.ClientResponse:
        data: Any = None
        if body is not None:
            data = body()
            if isinstance(data, bytes):
                data = io.BytesIO(data)  # bytes would be written in one go, and warned about
            headers["Content-Length"] = str(size)
        elif method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = "0"
        patience = _PATIENCE if method == "PUT" else self._session.timeout
        if connect_seconds is not None:
            patience = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds, sock_read=patience.sock_read)
        return await self._session.request(
            method,
            url,
            headers=headers,
            data=data,
            allow_redirects=False,
            ssl=tls,
            proxy=proxy_for(str(url)),
            timeout=patience,
        )

    async def _endpoint(self, host: Host) -> Endpoint:
        """Return how a host is spoken to; one that may or may not speak TLS is asked first."""
        candidates = self._hosts.candidates(host)
        if len(candidates) == 1:
            return candidates[0]
        failures: list[KestrelError] = []
        for endpoint in candidates:
            try:
                answer = await self._ping(endpoint)
            except CLIENT_ERRORS as error:
                failures.append(explain(error, endpoint.base))
                if isinstance(error, aiohttp.ClientConnectorError) and not _is_tls(error):
                    break  # nothing listens there, whatever it would speak
                continue
            answer.close()
            if _speaks_distribution(answer):
                self._hosts.choose(endpoint)
                if answer.status == 401:
                    self._authorizer.challenged(endpoint, parse(answer.headers.getall("WWW-Authenticate", [])), "")
                return endpoint
            failures.append(not_a_registry(host.name, answer.headers, answer.status))
        raise failures[0]

    async def _ping(self, endpoint: Endpoint) -> aiohttp.ClientResponse:
        url, headers = URL(endpoint.url("")), dict(endpoint.host.headers)
        return await self._once("GET", url, headers, tls=endpoint.tls, connect_seconds=endpoint.host.connect_seconds)

    async def _refused(self, call: Call, endpoint: Endpoint, answer: aiohttp.ClientResponse) -> KestrelError:
        body = b"" if call.method == "HEAD" else await _start_of(answer)
        error = refusal(answer.status, answer.headers, body, domain=call.domain, what=call.what)
        if answer.status == 404 and not _spec_shaped(answer, body):
            return await self._doubt(endpoint) or error
        return error

    async def _doubt(self, endpoint: Endpoint) -> "KestrelError | None":
        """After a 404 that no registry would write, ask whether this is one at all."""
        try:
            answer = await self._ping(endpoint)
        except CLIENT_ERRORS:
            return None
        answer.close()
        return None if _speaks_distribution(answer) else not_a_registry(endpoint.domain, answer.headers, answer.status)


def _with_mirrors(error: KestrelError, failures: Sequence[str]) -> KestrelError:
    """Add to an error what became of the mirrors that were asked first."""
    if failures:
        error.hint = "; ".join(filter(None, (error.hint, *(f"mirror {failure}" for failure in failures))))
    return error


def next_page(headers: Mapping[str, str]) -> str:
    """Return where a listing goes on (distribution-spec, "Listing Tags"), empty at its end."""
    following = _NEXT.search(headers.get("Link", ""))
    return following[1] if following else ""


async def bounded(answer: aiohttp.ClientResponse, limit: int, call: Call) -> bytes:
    """Return the body; raises Unavailable when it has more than `limit` bytes."""
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        if len(data) > limit:
            raise Unavailable(f"{call.domain} sent more than {limit} bytes for {call.what}")
    return bytes(data)


async def _start_of(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    try:
        async for part in answer.content.iter_any():
            data += part
            if len(data) >= _ERROR_BODY:
                break
    except CLIENT_ERRORS:
        pass  # the status says enough
    return bytes(data[:_ERROR_BODY])


def _absolute(path: str, endpoint: Endpoint) -> URL:
    """Return the URL of a path below `/v2/`, of an absolute path, or of a whole URL; escapes stay as they are.

    A registry behind a proxy that ends TLS often writes `http:` into its Locations: the same host keeps its TLS.
    """
    if "://" in path:
        url, home = URL(path, encoded=True), URL(endpoint.base)
        if url.scheme == "http" and home.scheme == "https" and url.host == home.host:
            return home.join(url.relative())
        return url
    if path.startswith("/"):
        return URL(endpoint.base).join(URL(path, encoded=True))
    return URL(endpoint.url(path), encoded=True)


def _redirect(answer: aiohttp.ClientResponse) -> "URL | None":
    location = answer.headers.get("Location")
    if answer.status not in _REDIRECTS or not location:
        return None
    try:
        target = answer.url.join(URL(location, encoded=True))
    except ValueError:
        return None
    return target if target.scheme in ("http", "https") and target.host else None


def _same_server(one: URL, other: URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _is_tls(error: aiohttp.ClientConnectorError) -> bool:
    return isinstance(error, aiohttp.ClientConnectorSSLError)


def _speaks_distribution(answer: aiohttp.ClientResponse) -> bool:
    """Whether an answer to `/v2/` is a registry's: 200, or 401 with a challenge (a proxy's login page has neither)."""
    if "Docker-Distribution-API-Version" in answer.headers:
        return True
    if answer.status == 401:
        return "WWW-Authenticate" in answer.headers
    return answer.status == 200 and "html" not in answer.headers.get("Content-Type", "")


def _spec_shaped(answer: aiohttp.ClientResponse, body: bytes) -> bool:
    return "Docker-Distribution-API-Version" in answer.headers or body.lstrip()[:1] == b"{"
