"""Paths that are no resources: version, health, discovery, OpenAPI, metrics and the keys of tokens."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable

from aiohttp import web

from kestrel.kube.api import openapi, status
from kestrel.kube.api.scheme import JSONObject, Scheme
from kestrel.kube.apiserver import answers, swagger
from kestrel.kube.apiserver.discovery import VERSIONS, Discovery
from kestrel.kube.apiserver.metrics import Metrics
from kestrel.kube.apiserver.printing import negotiate
from kestrel.kube.apiserver.tokens import TokenSigner
from kestrel.kube.store import ObjectStore

VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0+kestrel"}


class Paths:
    """Answers what is asked about the server itself."""

    def __init__(
        self,
        scheme: Scheme,
        store: ObjectStore,
        signer: TokenSigner,
        metrics: Metrics,
        *,
        build: str,
        ready: Callable[[], str],
    ) -> None:
        self._scheme = scheme
        self._store = store
        self._signer = signer
        self._metrics = metrics
        self._build = build
        self._ready = ready
        self._discovery = Discovery(scheme)

    async def answer(self, request: web.Request, path: str) -> web.Response:
        """Answer a GET of a path; raises NotFound."""
        if request.method not in ("GET", "HEAD"):
            raise status.no_such_path()
        match path.split("/")[1:]:
            case ["version"]:
                return answers.json(self._version())
            case ["healthz" | "livez" | "readyz" as probe, *rest]:
                return self._health(request, probe, rest)
            case ["metrics"]:
                text = self._metrics.text(self._store.version)
                return web.Response(text=text, content_type="text/plain")
            case ["api"] | ["apis"]:
                return self._groups(request, core=path == "/api")
            case ["api", version]:
                return answers.found(self._discovery.resources("", version))
            case ["apis", group]:
                return answers.found(self._discovery.group(group))
            case ["apis", group, version]:
                return answers.found(self._discovery.resources(group, version))
            case ["openapi", *rest]:
                return await self._openapi(request, rest)
            case [".well-known", "openid-configuration"]:
                return answers.json(self._openid())
            case ["openid", "v1", "jwks"]:
                return answers.json(self._signer.jwks(), content_type="application/jwk-set+json")
            case [""]:
                return answers.json({"paths": self._paths()})
        raise status.no_such_path()

    def _version(self) -> JSONObject:
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        return {
            **VERSION,
            "gitCommit": self._build,
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation(),
            "platform": f"linux/{machine}",
        }

    def _health(self, request: web.Request, probe: str, rest: list[str]) -> web.Response:
        if rest not in ([], ["ping"]):
            raise status.no_such_path()
        reason = self._ready() if probe == "readyz" else ""
        code = 500 if reason else 200
        if "verbose" in request.query or reason:
            lines = ["[+]ping ok", f"[-]platform failed: {reason}" if reason else "[+]platform ok"]
            lines.append(f"{probe} check {'failed' if reason else 'passed'}")
            return web.Response(text="\n".join(lines) + "\n", status=code)
        return web.Response(text="ok")

    def _groups(self, request: web.Request, *, core: bool) -> web.Response:
        accept = request.headers.get("Accept", "")
        for offer in accept.split(","):
            parameters = dict(part.strip().split("=", 1) for part in offer.split(";")[1:] if "=" in part)
            form = parameters.get("v", "")
            if parameters.get("as") == "APIGroupDiscoveryList" and form in VERSIONS:
                body, kind = self._discovery.aggregated(form, core=core)
                return web.Response(body=body, headers={"Content-Type": kind, "Vary": "Accept"})
        return answers.found(self._discovery.core if core else self._discovery.groups)

    async def _openapi(self, request: web.Request, rest: list[str]) -> web.Response:
        match rest:
            case ["v2"]:
                return await self._swagger(request)
            case ["v3"]:
                return answers.found(openapi.v3_index(self._scheme))
            case ["v3", "api", version]:
                group = ""
            case ["v3", "apis", group, version]:
                pass
            case _:
                raise status.no_such_path()
        body = openapi.v3_document(group, version, self._scheme)
        if body is None:
            raise status.no_such_path()
        return await self._cached(request, body)

    async def _swagger(self, request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        document = openapi.v2(self._scheme)
        if swagger.ASKED_FOR in accept:
            body = await asyncio.to_thread(swagger.encode, document)
            return await answers.encoded(request, body, swagger.MEDIA_TYPE)
        negotiate(accept, {})
        return await self._cached(request, document)

    async def _cached(self, request: web.Request, body: bytes) -> web.Response:
        """Answer with a document that the client may keep: for ever when its address carries the hash."""
        response = await answers.encoded(request, body, answers.JSON)
        if request.query.get("hash"):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    def _openid(self) -> JSONObject:
        return {
            "issuer": self._signer.issuer,
            "jwks_uri": f"{self._signer.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def _paths(self) -> list[str]:
        groups = self._scheme.groups()
        found = ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        for group, versions in groups.items():
            found += [f"/apis/{group}", *(f"/apis/{group}/{v}" for v in versions)] if group else ["/api/v1"]
        return sorted(found)
