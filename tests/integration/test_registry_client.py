"""The client of any registry against real servers on loopback: ours, docker-registry, guarded ones and hostile ones."""

import asyncio
import base64
import contextlib
import io
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from kestrel.base.db import Database
from kestrel.base.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from kestrel.content import Store
from kestrel.distribution import Client, Credential, Fixed, Settings
from kestrel.distribution.transport import Transport
from kestrel.http.client import session
from kestrel.http.server import Handler, Server, Tcp
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Index, Manifest
from kestrel.oci.platform import Platform
from kestrel.oci.reference import Reference
from kestrel.registry import Registry

CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
FAST = Settings(backoff_seconds=0.01)


def image(*layers: bytes) -> bytes:
    config = Descriptor.of(media_types.OCI_CONFIG, CONFIG)
    return Manifest.of(config, [Descriptor.of(media_types.OCI_LAYER, layer) for layer in layers]).encode()


def layer_of(data: bytes) -> Descriptor:
    return Descriptor.of(media_types.OCI_LAYER, data)


def reference(server: Server, rest: str) -> Reference:
    return Reference.parse(server.addresses[0].partition("://")[2] + "/" + rest)


async def read(client: Client, ref: Reference, descriptor: Descriptor, offset: int = 0) -> bytes:
    return b"".join([piece async for piece in client.blob(ref, descriptor, offset)])


async def push(client: Client, ref: Reference, *layers: bytes) -> Descriptor:
    for data in (CONFIG, *layers):
        await client.push_blob(ref, layer_of(data), lambda data=data: io.BytesIO(data))
    return await client.push_manifest(ref, media_types.OCI_MANIFEST, image(*layers))


@contextlib.asynccontextmanager
async def our_registry(root: Path) -> AsyncIterator[tuple[Server, Registry]]:
    database = Database(root / "kestrel.db")
    registry = Registry(Store(root, database), database)
    async with Server(registry.handle, [Tcp()]) as server:
        yield server, registry
    database.close()


@pytest_asyncio.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Server]:
    async with our_registry(tmp_path) as (server, _):
        yield server


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    async with Client.open(FAST) as opened:
        yield opened


# -- against our own registry


@pytest.mark.parametrize("chunk", [0, 100_000])
async def test_what_is_pushed_is_pulled_back(ours: Server, chunk: int) -> None:
    big = os.urandom(1_250_000)
    async with Client.open(Settings(chunk=chunk)) as client:
        ref = reference(ours, "team/app:v1")
        pushed = await push(client, ref, big, b"")
        assert await client.resolve(ref) == pushed
        found, data = await client.manifest(ref)
        assert (found, data) == (pushed, image(big, b""))
        assert await read(client, ref, layer_of(big)) == big
        assert await read(client, ref, layer_of(big), 1_000_000) == big[1_000_000:]
        assert await read(client, ref, layer_of(b"")) == b""
        assert await client.tags(ref) == ["v1"]
        assert await client.catalog(ref.domain) == ["team/app"]
        await client.delete_manifest(ref)
        with pytest.raises(NotFound, match="team/app:v1"):
            await client.resolve(ref)


async def test_what_is_there_is_not_sent_again_and_a_neighbour_is_mounted(ours: Server, client: Client) -> None:
    one, two = reference(ours, "one:v1"), reference(ours, "two:v1")
    progress: list[int] = []

    def opened() -> io.BytesIO:
        return io.BytesIO(b"layer")

    assert await client.push_blob(one, layer_of(b"layer"), opened, sent=progress.append)
    assert progress == [5]
    assert not await client.push_blob(one, layer_of(b"layer"), opened)
    assert not await client.push_blob(two, layer_of(b"layer"), opened, mount_from=one)
    assert await read(client, two, layer_of(b"layer")) == b"layer"


async def test_an_index_is_resolved_to_the_platform(ours: Server, client: Client) -> None:
    ref = reference(ours, "multi:v1")
    entries = []
    for architecture in ("amd64", "arm64"):
        made = await push(client, ref.with_tag(architecture), architecture.encode())
        entries.append(
            Descriptor(
                media_type=made.media_type,
                digest=made.digest,
                size=made.size,
                platform=Platform(os="linux", architecture=architecture),
            )
        )
    index = await client.push_manifest(ref, media_types.OCI_INDEX, Index.of(entries).encode())
    assert await client.resolve(ref) == index
    found = await client.resolve(ref, Platform(os="linux", architecture="arm64"))
    assert found.digest == entries[1].digest
    assert (await client.manifest(ref, found))[1] == image(b"arm64")
    with pytest.raises(NotFound, match="s390x"):
        await client.resolve(ref, Platform(os="linux", architecture="s390x"))


async def test_a_listing_of_many_pages_is_read_to_its_end(tmp_path: Path, client: Client) -> None:
    async with our_registry(tmp_path) as (server, registry):
        ref = reference(server, "a:x")
        await push(client, ref, b"layer")
        digest = Digest.of(image(b"layer"))
        names = [f"t{number:05}" for number in range(12_000)]
        registry.repositories.put_manifest("a", digest, media_types.OCI_MANIFEST, image(b"layer"), names)
        assert await client.tags(ref) == [*names, "x"]


async def test_a_push_of_an_image_whose_blobs_are_missing_is_refused(ours: Server, client: Client) -> None:
    with pytest.raises(NotFound, match="names 2 things"):
        await client.push_manifest(reference(ours, "a:v1"), media_types.OCI_MANIFEST, image(b"never pushed"))


async def test_a_private_authority_is_trusted_when_its_registry_is_local(tmp_path: Path, client: Client) -> None:
    from kestrel.http.tls import Authority

    database = Database(tmp_path / "kestrel.db")
    registry = Registry(Store(tmp_path, database), database)
    context = Authority.load_or_create(tmp_path / "pki").server_context(["localhost"], ["127.0.0.1"])
    big = os.urandom(700_000)
    async with Server(registry.handle, [Tcp(tls=context)]) as server:
        ref = reference(server, "a:v1")
        await push(client, ref, big)
        assert await read(client, ref, layer_of(big)) == big
    database.close()


# -- guarded registries


@dataclass
class Guard:
    """A registry behind a token server, or behind Basic; writes down what it was asked."""

    tokens: list[dict[str, str]] = field(default_factory=list)
    oauth: bool = True
    scheme: str = "Bearer"
    lifetime: int = 300
    user: str = "me"
    password: str = "pa:ss"
    realm: str = ""
    anonymous: bool = False
    delay: float = 0.0
    refused: int = 0
    valid: dict[str, set[str]] = field(default_factory=dict)

    async def token(self, request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(self.delay)
        if request.method == "POST":
            if not self.oauth:
                return web.Response(status=405)
            form = dict(item.split("=", 1) for item in (await request.text()).split("&"))
            from urllib.parse import unquote_plus

            asked = {key: unquote_plus(value) for key, value in form.items()}
            scopes = asked["scope"].split(" ")
            known = (asked.get("username"), asked.get("password")) == (self.user, self.password)
            known = known or asked.get("refresh_token") == "refresh"
        else:
            asked, scopes = dict(request.query), request.query.getall("scope", [])
            header = request.headers.get("Authorization", "")
            secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            known = header == f"Basic {secret}" or (self.anonymous and not header)
        self.tokens.append({"method": request.method, **asked})
        if not known:
            return web.json_response({"details": "no"}, status=401)
        value = f"token-{len(self.tokens)}"
        self.valid[value] = set(scopes)
        name = "access_token" if request.method == "POST" else "token"
        return web.json_response({name: value, "expires_in": self.lifetime})

    def wrap(self, handler: Handler) -> Handler:
        async def guarded(request: web.BaseRequest) -> web.StreamResponse:
            if request.path == "/token":
                return await self.token(request)
            header = request.headers.get("Authorization", "")
            if self.scheme == "Basic":
                secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
                if header == f"Basic {secret}":
                    return await handler(request)
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})
            needed = self.needed(request)
            granted = self.valid.get(header.removeprefix("Bearer "), set())
            if any(scope in (needed, f"{needed},push") for scope in granted):
                return await handler(request)
            self.refused += 1
            realm = self.realm or f"http://{request.host}/token"
            challenge = f'Bearer realm="{realm}",service="test",scope="{needed}"'
            return web.Response(status=401, headers={"WWW-Authenticate": f'Basic realm="x", {challenge}'})

        return guarded

    @staticmethod
    def needed(request: web.BaseRequest) -> str:
        if request.path == "/v2/":
            return ""
        name = request.path.removeprefix("/v2/").partition("/")[0]
        actions = "pull" if request.method in ("GET", "HEAD") and "blobs/uploads" not in request.path else "pull,push"
        return f"repository:{name}:{actions}"


@contextlib.asynccontextmanager
async def guarded(root: Path, guard: Guard) -> AsyncIterator[Server]:
    database = Database(root / "kestrel.db")
    registry = Registry(Store(root, database), database)
    async with Server(guard.wrap(registry.handle), [Tcp()]) as server:
        yield server
    database.close()


def me(server: Server, **secret: str) -> Fixed:
    known = secret or {"username": "me", "password": "pa:ss"}
    return Fixed(server.addresses[0].partition("://")[2], Credential(**known))


async def pull_and_push(client: Client, ref: Reference) -> None:
    await push(client, ref, b"layer")
    assert (await client.manifest(ref))[1] == image(b"layer")
    assert await read(client, ref, layer_of(b"layer")) == b"layer"


async def test_basic_credentials_open_a_guarded_registry(tmp_path: Path, client: Client) -> None:
    async with guarded(tmp_path, Guard(scheme="Basic")) as server:
        await pull_and_push(client.with_credentials(me(server)), reference(server, "a:v1"))
        with pytest.raises(Unauthenticated, match="a:v1") as caught:
            await client.resolve(reference(server, "a:v1"))
        assert "kestrel login" in (caught.value.hint or "")
        wrong = me(server, username="me", password="wrong")
        with pytest.raises(Unauthenticated):
            await client.with_credentials(wrong).resolve(reference(server, "a:v1"))


@pytest.mark.parametrize("oauth", [True, False])
async def test_bearer_tokens_are_fetched_by_oauth_or_by_get_and_reused(
    tmp_path: Path, client: Client, oauth: bool
) -> None:
    guard = Guard(oauth=oauth)
    async with guarded(tmp_path, guard) as server:
        await pull_and_push(client.with_credentials(me(server)), reference(server, "a:v1"))
    methods = [asked["method"] for asked in guard.tokens]
    assert methods == ["POST", "POST"] if oauth else ["GET", "GET"]
    assert {asked["scope"] for asked in guard.tokens} == {"repository:a:pull", "repository:a:pull,push"}
    assert all(asked["service"] == "test" for asked in guard.tokens)
    assert guard.refused == 1  # only the first question went without a token


async def test_an_identity_token_is_exchanged_and_a_wrong_one_is_named(tmp_path: Path, client: Client) -> None:
    guard = Guard()
    async with guarded(tmp_path, guard) as server:
        await pull_and_push(client.with_credentials(me(server, identity_token="refresh")), reference(server, "a:v1"))
        assert guard.tokens[0]["grant_type"] == "refresh_token"
        with pytest.raises(Unauthenticated, match="identity token"):
            await client.with_credentials(me(server, identity_token="old")).resolve(reference(server, "a:v1"))


async def test_anonymous_tokens_are_used_where_they_are_given(tmp_path: Path, client: Client) -> None:
    guard = Guard(anonymous=True)
    async with guarded(tmp_path, guard) as server:
        await pull_and_push(client, reference(server, "a:v1"))
    assert {asked["method"] for asked in guard.tokens} == {"GET"}


async def test_without_credentials_the_error_says_what_to_do(tmp_path: Path, client: Client) -> None:
    async with guarded(tmp_path, Guard()) as server:
        with pytest.raises(Unauthenticated, match="no anonymous access") as caught:
            await client.resolve(reference(server, "a:v1"))
        assert "imagePullSecret" in (caught.value.hint or "")
        with pytest.raises(Unauthenticated, match="does not accept the credentials of eve") as caught:
            await client.with_credentials(me(server, username="eve", password="s3cret")).resolve(
                reference(server, "a:v1")
            )
        assert "s3cret" not in str(caught.value) + (caught.value.hint or "")


async def test_many_who_need_the_same_token_fetch_it_once(tmp_path: Path, client: Client) -> None:
    guard = Guard(delay=0.1)
    async with guarded(tmp_path, guard) as server:
        known = client.with_credentials(me(server))
        ref = reference(server, "a:v1")
        await push(known, ref, b"layer")
        guard.tokens.clear()
        other = client.with_credentials(me(server))
        await asyncio.gather(*(other.resolve(ref) for _ in range(20)))
    assert len(guard.tokens) == 1


async def test_a_token_that_is_revoked_is_replaced(tmp_path: Path, client: Client) -> None:
    guard = Guard()
    async with guarded(tmp_path, guard) as server:
        known, ref = client.with_credentials(me(server)), reference(server, "a:v1")
        await push(known, ref, b"layer")
        guard.valid.clear()
        assert (await known.manifest(ref))[1] == image(b"layer")


async def test_a_token_is_fetched_again_before_it_ends(tmp_path: Path) -> None:
    class Clock:
        time = 0.0

        def monotonic(self) -> float:
            return self.time

        def now(self):  # type: ignore[no-untyped-def] - not asked for here
            raise AssertionError

    guard, clock = Guard(lifetime=100), Clock()
    async with guarded(tmp_path, guard) as server, session() as http:
        client = Client(http, me(server), settings=FAST, clock=clock)
        ref = reference(server, "a:v1")
        await push(client, ref, b"layer")
        for moment, fetched in ((0, 2), (85, 2), (95, 3)):
            clock.time = moment
            await client.resolve(ref)
            assert len(guard.tokens) == fetched


async def test_a_ready_registry_token_is_shown_as_it_is(tmp_path: Path, client: Client) -> None:
    guard = Guard(valid={"ready": {"repository:a:pull", "repository:a:pull,push"}})
    async with guarded(tmp_path, guard) as server:
        await pull_and_push(client.with_credentials(me(server, registry_token="ready")), reference(server, "a:v1"))
    assert guard.tokens == []


async def test_a_token_server_that_is_away_or_talks_nonsense_is_named(tmp_path: Path, client: Client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}/token"
    async with guarded(tmp_path, Guard(realm=away)) as server:
        with pytest.raises(Unavailable, match=r"cannot get a token for .*connection refused"):
            await client.resolve(reference(server, "a:v1"))


# -- servers that mean no good, or do no good


@contextlib.asynccontextmanager
async def serving(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[Server]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.Response(headers={"Docker-Distribution-API-Version": "registry/2.0"})
        return await handler(request)

    async with Server(answer, [Tcp()]) as server:
        yield server


async def test_authorization_never_follows_a_redirect_to_another_host(client: Client) -> None:
    seen: list[str] = []
    blob = b"the bytes of a layer"

    async def store(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization", "none"))
        return web.Response(body=blob)

    async with Server(store, [Tcp()]) as other:

        async def registry(request: web.BaseRequest) -> web.StreamResponse:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
            if "again" not in request.query:
                return web.Response(status=307, headers={"Location": request.path + "?again=1"})
            return web.Response(status=307, headers={"Location": other.addresses[0] + "/x?sig=a%2Fb"})

        async with serving(registry) as server:
            known = client.with_credentials(me(server))
            assert await read(known, reference(server, "a"), layer_of(blob)) == blob
    assert seen == ["none"]


async def test_a_redirect_loop_ends(client: Client) -> None:
    async def loop(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": request.path})

    async with serving(loop) as server:
        with pytest.raises(Unavailable, match="redirect"):
            await read(client, reference(server, "a"), layer_of(b"x"))


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        (b"other bytes!", "digest"),
        (b"short", "announced were 12"),
        (b"much longer than that", "announced were 12"),
    ],
)
async def test_wrong_bytes_never_reach_the_end_of_a_blob(client: Client, served: bytes, sentence: str) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=served)

    got: list[bytes] = []

    async def take(pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            got.append(piece)  # noqa: PERF401 - what came before the error matters

    async with serving(registry) as server:
        with pytest.raises(DataLoss, match=sentence):
            await take(client.blob(reference(server, "a"), layer_of(b"right bytes!")))
    assert b"".join(got) != served


async def test_an_endless_blob_is_cut_off_at_its_size(client: Client) -> None:
    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x" * 65536)
        return answer

    async with serving(registry) as server:
        with pytest.raises(DataLoss, match="more than the announced 1000"):
            await read(client, reference(server, "a"), layer_of(b"x" * 1000))


@pytest.mark.parametrize("honours_range", [True, False])
async def test_a_blob_is_taken_up_where_the_connection_broke(client: Client, honours_range: bool) -> None:
    data = os.urandom(400_000)
    ranges: list[str] = []

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        text = request.headers.get("Range", "")
        ranges.append(text)
        start = int(text.removeprefix("bytes=").rstrip("-")) if text and honours_range else 0
        answer = web.StreamResponse(status=206 if start else 200)
        answer.content_length = len(data) - start
        if start:
            answer.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await answer.prepare(request)
        reach = len(data) if len(ranges) == 4 else (len(ranges)) * 100_000
        await answer.write(data[start:reach])
        if reach < len(data):
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        return answer

    async with serving(registry) as server:
        assert await read(client, reference(server, "a"), layer_of(data)) == data
    assert len(ranges) == 4
    assert ranges[0] == ""
    assert all(text.startswith("bytes=") for text in ranges[1:])


async def test_a_blob_that_never_comes_further_is_given_up(client: Client) -> None:
    asked = 0

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        answer = web.StreamResponse()
        answer.content_length = 100
        await answer.prepare(request)
        assert request.transport is not None
        request.transport.abort()
        return answer

    async with serving(registry) as server:
        with pytest.raises(Unavailable, match="closed the connection"):
            await read(client, reference(server, "a"), layer_of(b"x" * 100))
    assert asked == FAST.attempts


async def test_a_manifest_with_another_digest_is_refused(client: Client) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=image(b"evil"), headers={"Content-Type": media_types.OCI_MANIFEST})

    async with serving(registry) as server:
        wanted = reference(server, f"a@{Digest.of(image(b'good'))}")
        with pytest.raises(DataLoss, match="when asked for"):
            await client.manifest(wanted)


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (b"not json", media_types.OCI_MANIFEST, InvalidArgument),
        (image(), media_types.OCI_INDEX, InvalidArgument),
        (b"x" * 5_000_000, media_types.OCI_MANIFEST, Unavailable),
        (b'{"schemaVersion": 1}', media_types.DOCKER_SCHEMA1_SIGNED, InvalidArgument),
    ],
)
async def test_what_is_no_manifest_is_refused(client: Client, body: bytes, kind: str, error: type[Exception]) -> None:
    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(body=io.BytesIO(body), headers={"Content-Type": kind})

    async with serving(registry) as server:
        with pytest.raises(error):
            await client.manifest(reference(server, "a:v1"))


async def test_a_file_server_that_knows_no_media_types_serves_images_too(client: Client) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=image(b"x"), content_type="text/plain")

    async with serving(registry) as server:
        found, _ = await client.manifest(reference(server, "a:v1"))
    assert found.media_type == media_types.OCI_MANIFEST


async def test_waiting_is_as_long_as_the_registry_asks_and_then_the_request_is_repeated() -> None:
    slept: list[float] = []
    answers = [
        web.Response(status=429, headers={"Retry-After": "7"}),
        web.Response(status=503),
        web.Response(body=image(b"x"), headers={"Content-Type": media_types.OCI_MANIFEST}),
    ]

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=405) if request.method == "HEAD" else answers.pop(0)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with serving(registry) as server, Client.open() as client:
        transport: Transport = client._transport
        transport._sleep = sleep
        await client.manifest(reference(server, "a:v1"))
    first, second = slept
    assert 7 <= first <= 8
    assert 0.5 <= second <= 1


async def test_a_registry_that_asks_for_an_hour_is_reported_at_once(client: Client) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    async with serving(registry) as server:
        with pytest.raises(ResourceExhausted, match="too many requests") as caught:
            await client.resolve(reference(server, "a:v1"))
    assert "3600 s" in (caught.value.hint or "")


async def test_a_web_server_is_not_a_registry() -> None:
    async def website(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, text="<html>nothing</html>", content_type="text/html")

    async with Server(website, [Tcp()]) as server, Client.open(FAST) as client:
        with pytest.raises(FailedPrecondition, match=r"not a container registry: it answered 404 with text/html"):
            await client.resolve(reference(server, "a:v1"))


async def test_a_closed_port_and_a_name_that_does_not_resolve_are_told_apart(client: Client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="connection refused"):
        await client.resolve(Reference.parse(f"127.0.0.1:{port}/a:v1"))
    with pytest.raises(Unavailable, match="does not resolve"):
        await client.resolve(Reference.parse("registry.invalid/a:v1"))


async def test_a_forbidden_repository_is_permission_denied(client: Client) -> None:
    async def registry(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": "DENIED", "message": "not yours"}]}, status=403)

    async with serving(registry) as server:
        with pytest.raises(PermissionDenied):
            await client.manifest(reference(server, "a:v1"))


async def test_a_proxy_that_limits_requests_makes_the_push_go_in_chunks(tmp_path: Path, client: Client) -> None:
    data, sizes = os.urandom(20_000_000), []
    database = Database(tmp_path / "kestrel.db")
    registry = Registry(Store(tmp_path, database), database)

    async def limited(request: web.BaseRequest) -> web.StreamResponse:
        sizes.append(request.content_length or 0)
        if (request.content_length or 0) > 17_000_000:
            return web.Response(status=413)
        return await registry.handle(request)

    async with Server(limited, [Tcp()]) as server:
        ref = reference(server, "a:v1")
        await client.push_blob(ref, layer_of(data), lambda: io.BytesIO(data))
        assert await read(client, ref, layer_of(data)) == data
    assert max(size for size in sizes if size < 17_000_000) == 16 << 20
    database.close()


async def test_a_push_that_breaks_off_goes_on_from_where_it_came(tmp_path: Path) -> None:
    data, patches = os.urandom(500_000), []
    database = Database(tmp_path / "kestrel.db")
    registry = Registry(Store(tmp_path, database), database)

    async def flaky(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "PATCH":
            patches.append(request.headers["Content-Range"])
            if len(patches) == 2:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
        return await registry.handle(request)

    async with Server(flaky, [Tcp()]) as server, Client.open(Settings(backoff_seconds=0.01, chunk=200_000)) as client:
        ref = reference(server, "a:v1")
        await client.push_blob(ref, layer_of(data), lambda: io.BytesIO(data))
        assert await read(client, ref, layer_of(data)) == data
    assert patches == ["0-199999", "200000-399999", "200000-399999", "400000-499999"]
    database.close()


# -- an independent registry


@pytest_asyncio.fixture
async def docker_registry(tmp_path: Path) -> AsyncIterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (apt-get install docker-registry)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "config.yml").write_text(json.dumps(settings))
    process = await asyncio.create_subprocess_exec(
        program,
        "serve",
        str(tmp_path / "config.yml"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                break
            await asyncio.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.clients
@pytest.mark.parametrize("chunk", [0, 300_000])
async def test_docker_registry_takes_and_gives_the_same(docker_registry: str, chunk: int) -> None:
    big = os.urandom(1_000_000)
    async with Client.open(Settings(chunk=chunk)) as client:
        ref = Reference.parse(f"{docker_registry}/team/app:v1")
        pushed = await push(client, ref, big)
        assert await client.resolve(ref) == pushed
        assert (await client.manifest(ref))[1] == image(big)
        assert await read(client, ref, layer_of(big)) == big
        assert await read(client, ref, layer_of(big), 900_000) == big[900_000:]
        other = Reference.parse(f"{docker_registry}/other/app:v1")
        assert not await client.push_blob(other, layer_of(big), lambda: io.BytesIO(b""), mount_from=ref)
        assert await client.tags(ref) == ["v1"]
        assert "team/app" in await client.catalog(docker_registry)
        await client.delete_manifest(ref.with_digest(pushed.digest))
        with pytest.raises(NotFound, match="manifest unknown"):
            await client.manifest(ref)
