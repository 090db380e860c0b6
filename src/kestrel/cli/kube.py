"""A few requests to the Kubernetes API with nothing but the standard library: what `kestrel demo` does as a client.

It is the same API that kubectl uses, over the same TLS and with the same rights; a machine without kubectl can show
the whole way.
"""

import http.client
import json
import ssl
from urllib.parse import urlsplit

from kestrel.base.errors import AlreadyExists, Conflict, Internal, KestrelError, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_KINDS: "dict[str, type[KestrelError]]" = {"NotFound": NotFound, "AlreadyExists": AlreadyExists, "Conflict": Conflict}


class Kubernetes:
    """One connection's worth of client. `access` is what `status` says under `kubernetes`."""

    def __init__(self, access: "dict[str, Any]") -> None:
        self._url = urlsplit(access["url"])
        self._context = ssl.create_default_context(cafile=access["authority"])
        self._context.load_cert_chain(access["certificate"], access["key"])

    def request(self, method: str, path: str, body: "dict[str, Any] | None" = None, *, kind: str = "json") -> "Any":
        """Send one request and return the object that answers it. Raises the error that the Status says."""
        response = self._send(method, path, body, kind)
        return json.loads(response.read())

    def lines(self, path: str) -> "Iterator[bytes]":
        """Yield the lines of a streamed answer (a log, a watch) until the server ends it."""
        yield from self._send("GET", path, None, "json")

    def _send(self, method: str, path: str, body: "dict[str, Any] | None", kind: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPSConnection(
            self._url.hostname or "", self._url.port, context=self._context, timeout=60
        )
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": f"application/{kind}"})
            response = connection.getresponse()
        except OSError as error:
            raise Unavailable(f"the Kubernetes API at {self._url.netloc} does not answer: {error}") from error
        if response.status >= 400:
            status = json.loads(response.read())
            raise _KINDS.get(status.get("reason", ""), Internal)(status.get("message", f"HTTP {response.status}"))
        return response
