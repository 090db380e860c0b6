"""The REST API as an aiohttp application: requests in, verbs called, answers out.

`ApiServer` puts the parts together over one store; `application()` is what `http.server.Server` serves (with TLS and
`ask_clients`, so that client certificates count) and `transport()` is what the platform's own parts call. One handler
takes every request: who is it, what is asked, may it, do it. There is no code per kind: paths come from the table of
resources, and an error of any part becomes the Status that Kubernetes has for it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from kestrel.base.clock import Clock, SystemClock
from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.http import server as http
from kestrel.kube.api import status
from kestrel.kube.api.resource import GroupVersionKind, split_api_version
from kestrel.kube.api.scheme import BUILTIN, JSONObject, Resource, Scheme
from kestrel.kube.apiserver import answers, requests
from kestrel.kube.apiserver.admission import Admission, AdmissionSettings
from kestrel.kube.apiserver.auth import Attributes, Authenticator, allowed, forbid
from kestrel.kube.apiserver.backends import NodeBackend
from kestrel.kube.apiserver.call import INTERNAL, STRICT, Call, Caller
from kestrel.kube.apiserver.inprocess import InProcess
from kestrel.kube.apiserver.metrics import Metrics
from kestrel.kube.apiserver.node import Node
from kestrel.kube.apiserver.patching import patched
from kestrel.kube.apiserver.paths import Paths
from kestrel.kube.apiserver.printing import Form, Printer, negotiate
from kestrel.kube.apiserver.requests import Route
from kestrel.kube.apiserver.reviews import Reviews
from kestrel.kube.apiserver.rules import Rules
from kestrel.kube.apiserver.strategies import strategy
from kestrel.kube.apiserver.subresources import Subresources
from kestrel.kube.apiserver.tokens import TokenSigner
from kestrel.kube.apiserver.verbs import Verbs
from kestrel.kube.apiserver.watch import stream
from kestrel.kube.client import DeleteOptions
from kestrel.kube.store import ObjectStore, Record

log = logging.getLogger(__name__)

_DELETE_OPTIONS = GroupVersionKind("", "v1", "DeleteOptions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this API server is set up."""

    tokens: Mapping[str, Caller] = field(default_factory=dict)
    """Bearer tokens and who they are."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    build: str = ""
    """What built this: shown as `gitCommit` of the version."""


class ApiServer:
    """The Kubernetes API over one object store."""

    def __init__(
        self,
        store: ObjectStore,
        signer: TokenSigner,
        *,
        settings: Settings = Settings(),
        backend: NodeBackend | None = None,
        scheme: Scheme = BUILTIN,
        ready: Callable[[], str] = lambda: "",
        clock: Clock | None = None,
    ) -> None:
        """`ready` returns why the platform is not ready yet, empty when it is."""
        self._clock = clock or SystemClock()
        self.rules = Rules(scheme)
        self.verbs = Verbs(store, self.rules, Admission(store, settings.admission), clock=self._clock)
        self._authenticator = Authenticator(store, signer, settings.tokens)
        self._subresources = Subresources(self.verbs, signer)
        self._reviews = Reviews(self._authenticator)
        self._printer = Printer(self.rules)
        self._metrics = Metrics()
        self._paths = Paths(scheme, store, signer, self._metrics, build=settings.build, ready=ready)
        self._node = Node(backend)
        self._streams: set[asyncio.Task[object]] = set()

    def connect(self, backend: NodeBackend) -> None:
        """Give the server its node: the kubelet is made after the API it talks to."""
        self._node = Node(backend)

    def transport(self, caller: Caller = INTERNAL) -> InProcess:
        """Return the way in for parts of the same process."""
        return InProcess(self.verbs, self._subresources, caller)

    def application(self) -> web.Application:
        """Return the application to serve."""
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._serve)
        application.on_shutdown.append(self._end_streams)
        return application

    async def _end_streams(self, _: web.Application) -> None:
        """End watches, followed logs and sessions: a stop must not wait for clients that stay for ever."""
        for task in tuple(self._streams):
            task.cancel()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; every error becomes a Status."""
        verb = request.method.lower()
        try:
            response = await self._answer(request)
        except KestrelError as error:
            response = self._refuse(request, status.failure(error))
        except (ConnectionError, asyncio.CancelledError, web.HTTPException):
            raise
        except Exception as error:  # the client gets a 500 without our internals
            log.exception("%s %s", request.method, request.path)
            response = self._refuse(request, status.failure(error))
        self._metrics.count(verb, response.status)
        return response

    def _refuse(self, request: web.Request, body: JSONObject) -> web.Response:
        code = int(body["code"])
        response = answers.json(body, code)
        seconds = (body.get("details") or {}).get("retryAfterSeconds")
        if seconds:
            response.headers["Retry-After"] = str(seconds)
        if code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if not request.content.is_eof():
            response.force_close()
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert")
        caller = self._authenticator.caller(certificate, request.headers.get("Authorization", ""))
        path = request.rel_url.raw_path
        found = requests.route(self.rules.scheme, request.method, path, request.query)
        if found is None:
            asked = Attributes(verb=request.method.lower(), path=unquote(path))
            if not allowed(caller, asked):
                raise forbid(caller, asked)
            return await self._paths.answer(request, unquote(path).rstrip("/") or "/")
        if not allowed(caller, found.attributes):
            raise forbid(caller, found.attributes)
        return await self._resource(request, found, caller)

    # Resources

    async def _resource(self, request: web.Request, found: Route, caller: Caller) -> web.StreamResponse:
        resource = found.resource
        sub = resource.subresource(found.subresource) if found.subresource else None
        verbs = sub.verbs if sub is not None else resource.verbs
        if found.verb not in verbs or (found.verb == "create" and found.name and sub is None):
            raise status.method_not_allowed(resource, found.verb)
        if found.subresource in ("log", "exec", "attach", "portforward"):
            with self._streaming():
                return await self._below_pod(request, found)
        return await self._verb(request, found, caller)

    async def _verb(self, request: web.Request, found: Route, caller: Caller) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept", ""), request.query)
        handlers: dict[str, Callable[..., Awaitable[web.StreamResponse]]] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }
        call = Call(
            caller=caller,
            manager=request.query.get("fieldManager") or _manager(request.headers.get("User-Agent", "")),
            dry_run=requests.dry_run(request.query.getall("dryRun", [])),
            validation=requests.validation(request.query),
            force=requests.boolean(request.query.get("force", "")),
        )
        with self._streaming() if found.verb == "watch" else nullcontext():
            response = await handlers[found.verb](request, found, form, call)
        for sentence in call.warnings:
            if not response.prepared:
                response.headers.add("Warning", f'299 - "{_quoted(sentence)}"')
        return response

    @contextmanager
    def _streaming(self) -> Iterator[None]:
        """Count the current request among those that a stop ends."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        finally:
            self._streams.discard(task)

    async def _below_pod(self, request: web.Request, found: Route) -> web.StreamResponse:
        pod = self.verbs.get(found.resource, found.namespace, found.name).copy()
        if found.subresource == "log":
            if not (pod.get("spec") or {}).get("nodeName"):
                return web.Response(content_type="text/plain")
            return await self._node.logs(request, pod)
        if not (pod.get("spec") or {}).get("nodeName"):
            raise status.bad_request(f"pod {found.name} does not have a host assigned")
        if found.subresource == "portforward":
            return await self._node.forward(request, pod)
        return await self._node.stream(request, pod, found.subresource)

    async def _get(self, request: web.Request, found: Route, form: Form, _: Call) -> web.StreamResponse:
        record = self.verbs.get(found.resource, found.namespace, found.name)
        return await self._one(request, found.resource, record, form)

    async def _list(self, request: web.Request, found: Route, form: Form, _: Call) -> web.StreamResponse:
        options = requests.list_options(request.query)
        page = self.verbs.list(found.resource, found.namespace, "", options)
        body = self._printer.many(found.resource, page, form, self._clock.now())
        return await answers.encoded(request, body, form.content_type)

    async def _watch(self, request: web.Request, found: Route, form: Form, _: Call) -> web.StreamResponse:
        options = requests.list_options(request.query)
        with self._metrics.watching():
            return await stream(request, self.verbs, self._printer, found, form, options)

    async def _create(self, request: web.Request, found: Route, form: Form, call: Call) -> web.StreamResponse:
        resource = found.resource
        body, repeated = await self._object(request, found, call)
        if found.subresource:
            posted = await self._subresources.post(resource, found.subresource, found.namespace, found.name, body, call)
            return answers.plain(posted, form, 201)
        if resource.plural == "bindings" and not resource.group:
            pods = self.rules.scheme.by_plural("", "v1", "pods")
            assert pods is not None
            name = str((body.get("metadata") or {}).get("name", ""))
            return answers.plain(await self._subresources.bind(pods, found.namespace, name, body, call), form, 201)
        self.rules.check_fields(resource, body, call, repeated)
        if not resource.stored:
            return answers.plain(self._reviews.answer(resource, found.namespace, body, call.caller), form, 201)
        record = await self.verbs.create(
            self.rules.stored_as(resource), found.namespace, self.rules.kept(resource, body), call
        )
        return await self._one(request, resource, record, form, 201)

    async def _update(self, request: web.Request, found: Route, form: Form, call: Call) -> web.StreamResponse:
        resource = found.resource
        body, repeated = await self._object(request, found, call)
        _check_url(found, body)
        self.rules.check_fields(resource, body, call, repeated)
        kept = self.rules.kept(resource, body)
        record = await self.verbs.update(
            self.rules.stored_as(resource),
            found.namespace,
            found.name,
            lambda _: self.rules.copied(kept),
            call,
            subresource=found.subresource,
        )
        return await self._one(request, resource, record, form)

    async def _patch(self, request: web.Request, found: Route, form: Form, call: Call) -> web.StreamResponse:
        media = requests.media_type(request.headers.get("Content-Type", ""))
        patch, repeated = requests.patch_body(await _body(request), media)
        if call.validation == STRICT and repeated:
            listed = ", ".join(f'duplicate field "{path}"' for path in repeated)
            raise status.bad_request(f"error decoding patch: strict decoding error: {listed}")
        record, created = await patched(
            self.verbs,
            found.resource,
            found.namespace,
            found.name,
            patch,
            media,
            call,
            subresource=found.subresource,
        )
        return await self._one(request, found.resource, record, form, 201 if created else 200)

    async def _delete(self, request: web.Request, found: Route, form: Form, call: Call) -> web.StreamResponse:
        resource = self.rules.stored_as(found.resource)
        options = await self._delete_options(request, call)
        deleted = await self.verbs.delete(resource, found.namespace, found.name, options, call)
        if not deleted.gone or strategy(resource).returns_deleted:
            return await self._one(request, found.resource, deleted.record, form)
        details = {
            "name": found.name,
            "group": found.resource.group,
            "kind": found.resource.plural,
            "uid": deleted.record.object["metadata"]["uid"],
        }
        return answers.plain(status.success(details={k: v for k, v in details.items() if v}), form)

    async def _delete_all(self, request: web.Request, found: Route, form: Form, call: Call) -> web.StreamResponse:
        resource = self.rules.stored_as(found.resource)
        options = await self._delete_options(request, call)
        page = self.verbs.list(found.resource, found.namespace, "", requests.list_options(request.query))
        for record in page.page.records:
            try:
                await self.verbs.delete(resource, record.key.namespace, record.key.name, options, call)
            except NotFound:
                continue
        body = self._printer.many(found.resource, page, form, self._clock.now())
        return await answers.encoded(request, body, form.content_type)

    async def _delete_options(self, request: web.Request, call: Call) -> DeleteOptions:
        data = await _body(request)
        body: JSONObject = {}
        if data.strip():
            body, _ = requests.decode(data, request.headers.get("Content-Type", ""), _DELETE_OPTIONS)
        grace = body.get("gracePeriodSeconds")
        if grace is None:
            grace = requests.integer(request.query, "gracePeriodSeconds")
        propagation = body.get("propagationPolicy") or request.query.get("propagationPolicy")
        if propagation not in (None, "", "Orphan", "Background", "Foreground"):
            wrong = status.not_supported("propagationPolicy", propagation, ("Orphan", "Background", "Foreground"))
            message = f'DeleteOptions.meta.k8s.io "" is invalid: {wrong}'
            raise InvalidArgument(message, status=status.status(422, "Invalid", message))
        if isinstance(grace, bool) or not isinstance(grace, int | None):
            raise status.bad_request("gracePeriodSeconds must be a number")
        preconditions = body.get("preconditions") or {}
        call.dry_run = call.dry_run or requests.dry_run(list(body.get("dryRun") or []))
        return DeleteOptions(
            grace_seconds=grace,
            propagation=propagation,
            uid=preconditions.get("uid"),
            resource_version=preconditions.get("resourceVersion"),
            dry_run=call.dry_run,
        )

    async def _object(self, request: web.Request, found: Route, call: Call) -> tuple[JSONObject, list[str]]:
        """Read a body and check that it is of the kind this path takes."""
        resource = found.resource
        sub = resource.subresource(found.subresource) if found.subresource else None
        kind = resource.subresource_gvk(sub) if sub is not None else resource.gvk
        data = await _body(request)
        strict = call.validation != "Ignore"
        body, repeated = requests.decode(data, request.headers.get("Content-Type", ""), kind, strict=strict)
        given = (str(body.setdefault("apiVersion", kind.api_version)), str(body.setdefault("kind", kind.kind)))
        if given != (kind.api_version, kind.kind):
            raise _wrong_kind(given, kind)
        if not isinstance(body.get("metadata", {}), dict | None):
            raise status.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}')
        return body, repeated

    async def _one(
        self, request: web.Request, resource: Resource, record: Record, form: Form, code: int = 200
    ) -> web.Response:
        body = self._printer.one(resource, record, form, self._clock.now())
        return await answers.encoded(request, body, form.content_type, code)


def _check_url(found: Route, body: JSONObject) -> None:
    """Refuse a body of another object before anyone looks whether there is one."""
    given = str((body.get("metadata") or {}).get("name") or found.name)
    if given != found.name:
        raise status.bad_request(f"the name of the object ({given}) does not match the name on the URL ({found.name})")


def _wrong_kind(given: tuple[str, str], kind: GroupVersionKind) -> Exception:
    if given[1] != kind.kind:
        group, version = split_api_version(given[0])
        return status.bad_request(
            f'{given[1]} in version "{version}" cannot be handled as a {kind.kind}: converting '
            f"({group or 'core'}/{version}).{given[1]} to ({kind.api_version}).{kind.kind}: unknown conversion"
        )
    return status.bad_request(
        f"the API version in the data ({given[0]}) does not match the expected API version ({kind.api_version})"
    )


async def _body(request: web.Request) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise status.unsupported_media_type([f"{kind} without Content-Encoding" for kind in requests.BODIES])
    data = await http.body(request, requests.MAX_BODY)
    if data is None:
        raise status.too_large(f"limit is {requests.MAX_BODY}")
    return data


def _manager(agent: str) -> str:
    """Return the field manager of a client that names none: its program, as kube-apiserver takes it."""
    name = agent.partition("/")[0].strip()
    return "".join(ch for ch in name if ch.isprintable())[:128] or "unknown"


def _quoted(sentence: str) -> str:
    clean = "".join(ch for ch in sentence if ch.isprintable())
    return clean.replace("\\", "\\\\").replace('"', '\\"')


def kubeconfig(server: str, authority: Path | bytes, user: JSONObject, *, name: str = "kestrel") -> JSONObject:
    """Return a kubeconfig with one cluster, user and context."""
    pem = authority if isinstance(authority, bytes) else authority.read_bytes()
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(pem).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
