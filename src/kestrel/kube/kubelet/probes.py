"""Asking a container how it is: one exec, HTTP or TCP question with a time limit (kubernetes.io "Configure Probes").

Also carries lifecycle hooks of the same kinds. An HTTP answer from 200 to 399 is good; the connection is not kept and
certificates are not checked, as upstream does it. gRPC is not built and says so.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any

from kestrel.base.errors import FailedPrecondition, KestrelError, TimedOut
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet.runtime import PodRuntime

BODY_LIMIT = 10 * 1024
OUTPUT_LIMIT = 10 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: good or not, and what to tell people when not."""

    good: bool
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom to ask: the container's id, its specification, and the address the pod has."""

    id: str
    container: JSONObject
    address: str


async def ask(runtime: PodRuntime, handler: JSONObject, subject: Subject, *, timeout: float) -> Answer:
    """Ask once; a question that takes longer than `timeout` seconds is answered badly."""
    try:
        async with asyncio.timeout(timeout):
            return await _ask(runtime, handler, subject, timeout)
    except TimeoutError:
        return Answer(False, f"timed out after {timeout:g}s")


def unsupported(handler: JSONObject) -> str:
    """Return a sentence when the handler is of a kind that is not built, else nothing."""
    if "grpc" in handler:
        return "gRPC probes are not supported; use exec, httpGet or tcpSocket"
    return ""


async def _ask(runtime: PodRuntime, handler: JSONObject, subject: Subject, timeout: float) -> Answer:
    if "exec" in handler:
        return await _exec(runtime, handler["exec"], subject, timeout)
    try:
        if "httpGet" in handler:
            return await _http(handler["httpGet"], subject)
        if "tcpSocket" in handler:
            return await _tcp(handler["tcpSocket"], subject)
        if "sleep" in handler:
            await asyncio.sleep(float(handler["sleep"].get("seconds", 0)))
            return Answer(True)
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
        return Answer(False, _network_text(handler, subject, error))
    except FailedPrecondition as error:
        return Answer(False, str(error))
    return Answer(False, unsupported(handler) or "no handler of a known kind")


async def _exec(runtime: PodRuntime, action: JSONObject, subject: Subject, timeout: float) -> Answer:
    command = [str(word) for word in action.get("command") or ()]
    try:
        code, out, err = await runtime.exec_sync(subject.id, command, timeout=timeout, limit=OUTPUT_LIMIT)
    except TimedOut:
        return Answer(False, f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s')
    except KestrelError as error:
        return Answer(False, str(error))
    return Answer(code == 0, (out + err).decode(errors="replace").strip())


async def _tcp(action: JSONObject, subject: Subject) -> Answer:
    host = str(action.get("host") or subject.address)
    _, writer = await asyncio.open_connection(host, port_number(action["port"], subject.container))
    writer.close()
    return Answer(True)


async def _http(action: JSONObject, subject: Subject) -> Answer:
    secure = str(action.get("scheme") or "HTTP").upper() == "HTTPS"
    host = str(action.get("host") or subject.address)
    port = port_number(action["port"], subject.container)
    context = _lax_context() if secure else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(_request(action, host, port))
        await writer.drain()
        status = await _status(reader)
    finally:
        writer.close()
    return Answer(200 <= status < 400, f"HTTP probe failed with statuscode: {status}")


def _request(action: JSONObject, host: str, port: int) -> bytes:
    path = str(action.get("path") or "/")
    path = path if path.startswith("/") else f"/{path}"
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/kestrel", "Accept": "*/*", "Connection": "close"}
    for header in action.get("httpHeaders") or ():
        headers[str(header["name"])] = str(header.get("value", ""))
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    # A header could otherwise smuggle in a request of its own.
    clean = [line.replace("\r", "").replace("\n", "") for line in lines]
    return ("\r\n".join(clean) + "\r\n\r\n").encode("utf-8", "replace")


async def _status(reader: asyncio.StreamReader) -> int:
    line = (await reader.readline()).decode("latin-1").split(" ", 2)
    if len(line) < 2 or not line[0].startswith("HTTP/") or not line[1].isdigit():
        raise FailedPrecondition("malformed HTTP response")
    return int(line[1])


def _lax_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def port_number(port: Any, container: JSONObject) -> int:
    """Return a port by number, or by the name one of the container's ports has."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for known in container.get("ports") or ():
        if known.get("name") == port:
            return int(known["containerPort"])
    raise FailedPrecondition(f"container {container['name']} has no port named {port}")


def _network_text(handler: JSONObject, subject: Subject, error: Exception) -> str:
    kind = "httpGet" if "httpGet" in handler else "tcpSocket"
    where = f"{handler[kind].get('host') or subject.address}:{handler[kind]['port']}"
    cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedError):
        cause = "connection refused"
    prefix = "Get" if kind == "httpGet" else "dial tcp"
    if kind == "httpGet":
        scheme = str(handler[kind].get("scheme") or "HTTP").lower()
        return f'{prefix} "{scheme}://{where}{handler[kind].get("path") or "/"}": {cause}'
    return f"{prefix} {where}: {cause}"
