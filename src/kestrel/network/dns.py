"""The resolver that containers ask: names on the bridge answered here, everything else passed on.

It listens on the bridge's address, port 53, UDP and TCP, in the daemon's event loop. Questions about our names are
answered with a lifetime of 0, since sandboxes come and go. A name of one label that we do not know does not exist
(nobody upstream knows our names), and neither does an unknown address of our network. All else goes, byte for byte
under a fresh random id and port, to the host's resolvers, which are read again whenever /etc/resolv.conf changes.

Bounded: so many questions are in the air at once and no more; each upstream has a time limit; an answer too big for
the asker's buffer is cut and marked (TC), upon which it asks again over TCP (RFC 1035 4.2, RFC 6891, RFC 7766).
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import cast

from dnslib import EDNS0, PTR, QTYPE, RCODE, RR, A, DNSError, DNSHeader, DNSRecord

from kestrel.base.errors import Conflict, Unavailable
from kestrel.network import host
from kestrel.network.names import Names, fold

_log = logging.getLogger(__name__)

PORT = 53
HOST_NAMES = ("host.kestrel.internal", "host.docker.internal")
"""Names under which containers reach the host itself."""
_IN_FLIGHT = 512
_TCP_CONNECTIONS = 128
_UPSTREAM_SECONDS = 2.0
_IDLE_SECONDS = 10.0
_OUR_BUFFER = 1232  # what passes everywhere without fragments (DNS flag day 2020)
_PLAIN_LIMIT = 512


class Upstreams:
    """The host's resolvers, read again when the file changes. One that answers moves to the front."""

    def __init__(self, read: Callable[[], list[str]] = host.resolvers) -> None:
        self._read = read
        self._stamp: tuple[int, int] | None = None
        self._servers: list[str] = []

    def servers(self) -> list[str]:
        """Return the addresses in the order to try."""
        try:
            status = host.RESOLV_CONF.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = (0, 0)
        if stamp != self._stamp:
            self._stamp, self._servers = stamp, self._read()
        return list(self._servers)

    def prefer(self, server: str) -> None:
        """Try this one first from now on: it just answered when the one before it did not."""
        if server in self._servers and self._servers[0] != server:
            self._servers.remove(server)
            self._servers.insert(0, server)


class Resolver:
    """Answers on `address`. Start it, close it; `names` may change all the time.

    What is below `domain` is known here or does not exist: nobody else is asked.
    """

    def __init__(
        self,
        names: Names,
        address: str,
        network: IPv4Network,
        upstreams: Upstreams | None = None,
        *,
        domain: str = "cluster.local",
    ) -> None:
        self._domain = domain
        self._names = names
        self._address = address
        self._network = network
        self._upstreams = upstreams or Upstreams()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def start(self, port: int = PORT) -> int:
        """Listen; returns the port. Raises Conflict when somebody else answers there, Unavailable otherwise."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await asyncio.start_server(self._talk, self._address, port)
            port = self._server.sockets[0].getsockname()[1]
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Listener(self._heard), local_addr=(self._address, port)
            )
        except OSError as error:
            await self.close()
            owner = host.port_owner(port, "udp") or host.port_owner(port, "tcp")
            kind = Conflict if owner else Unavailable
            raise kind(
                f"the names of containers cannot be served: {self._address}:{port}: {error.strerror or error}"
                + (f", in use by {owner}" if owner else ""),
                hint="a name server that listens on every address has to leave ours out",
            ) from error
        return port

    async def close(self) -> None:
        """Stop listening and drop what is in the air."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _heard(self, query: bytes, asker: "tuple[str, int]") -> None:
        if len(self._tasks) >= _IN_FLIGHT:
            return  # the asker asks again; answering SERVFAIL would make a storm worse
        task = asyncio.get_running_loop().create_task(self._reply(query, asker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, query: bytes, asker: "tuple[str, int]") -> None:
        answer = await self.answer(query)
        if answer and self._transport is not None:
            self._transport.sendto(answer, asker)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one TCP connection: questions one after another, each with its length before it (RFC 7766)."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        self._connections += 1
        try:
            while self._connections <= _TCP_CONNECTIONS:
                async with asyncio.timeout(_IDLE_SECONDS):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(size)
                answer = await self.answer(query, stream=True)
                if not answer:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the asker went away or went silent
        finally:
            self._connections -= 1
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def answer(self, query: bytes, *, stream: bool = False) -> bytes:
        """Return the answer to a query as bytes; empty when it deserves none (no query at all)."""
        try:
            asked = DNSRecord.parse(query)
        except (DNSError, ValueError, IndexError, struct.error):
            return _malformed(query)
        if asked.header.qr:
            return b""  # an answer, not a question: answering answers would let two resolvers talk for ever
        if len(asked.questions) != 1 or asked.header.opcode != 0:
            return _packed(_failure(asked, RCODE.NOTIMP if asked.header.opcode else RCODE.FORMERR), _PLAIN_LIMIT)
        limit = 65535 if stream else _asker_limit(asked)
        own = self._own(asked)
        if own is not None:
            return _packed(own, limit)
        passed = await self._forward(query, stream=stream)
        if passed is None:
            return _packed(_failure(asked, RCODE.SERVFAIL), limit)
        return passed if len(passed) <= limit else _cut(passed)

    def _own(self, asked: DNSRecord) -> DNSRecord | None:
        """Answer what is ours to answer, None for what is not."""
        name, kind = fold(str(asked.q.qname)), QTYPE.get(asked.q.qtype)
        if name.endswith(".in-addr.arpa"):
            return self._reverse(asked, name)
        addresses = [self._address] if name in HOST_NAMES else self._names.addresses(name)
        if not addresses:
            ours = name and ("." not in name or f".{name}".endswith(f".{self._domain}"))
            return _failure(asked, RCODE.NXDOMAIN) if ours else None
        reply = _reply_to(asked)
        if kind in ("A", "ANY"):
            for address in addresses:
                reply.add_answer(RR(asked.q.qname, QTYPE.A, ttl=0, rdata=A(address)))
        return reply  # for AAAA and all else: the name exists, that record does not

    def _reverse(self, asked: DNSRecord, name: str) -> DNSRecord | None:
        labels = name.removesuffix(".in-addr.arpa").split(".")
        try:
            address = IPv4Address(".".join(reversed(labels)))
        except ValueError:
            return None
        if address not in self._network:
            return None
        found = HOST_NAMES[0] if str(address) == self._address else self._names.name_of(str(address))
        if not found:
            return _failure(asked, RCODE.NXDOMAIN)
        reply = _reply_to(asked)
        if QTYPE.get(asked.q.qtype) in ("PTR", "ANY"):
            reply.add_answer(RR(asked.q.qname, QTYPE.PTR, ttl=0, rdata=PTR(found + ".")))
        return reply

    async def _forward(self, query: bytes, *, stream: bool) -> bytes | None:
        """Ask the host's resolvers in turn; None when none answers in time."""
        number = os.urandom(2)
        send = _over_tcp if stream else _over_udp
        for server in self._upstreams.servers():
            if server == self._address:
                continue  # ourselves: somebody pointed the host at us
            try:
                async with asyncio.timeout(_UPSTREAM_SECONDS):
                    answer = await send(server, number + query[2:])
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                _log.debug("resolver %s does not answer: %r", server, error)
                continue
            self._upstreams.prefer(server)
            return query[:2] + answer[2:]
        return None


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, heard: "Callable[[bytes, tuple[str, int]], None]") -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, addr: "tuple[str, int]") -> None:
        self._heard(data, addr)


class _Question(asyncio.DatagramProtocol):
    """One question to one upstream: the first datagram that has our id and repeats our question is the answer."""

    def __init__(self, query: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._query = query
        self._answer = answer

    def datagram_received(self, data: bytes, addr: "tuple[str, int]") -> None:  # noqa: ARG002 - the socket is connected
        if _answers(data, self._query) and not self._answer.done():
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


def _answers(data: bytes, query: bytes) -> bool:
    if len(data) < 12 or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    end = _question_end(query)
    return data[12:end].lower() == query[12:end].lower()


def _question_end(message: bytes) -> int:
    """Return where the first question ends; questions are never compressed."""
    at = 12
    while at < len(message) and message[at]:
        at += message[at] + 1
    return at + 5


async def _over_udp(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Question(query, answer), remote_addr=(server, PORT), family=family
    )
    try:
        transport.sendto(query)
        return await answer
    finally:
        transport.close()


async def _over_tcp(server: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(size)
        if not _answers(answer, query):
            raise ConnectionError(f"{server} answers another question")
        return answer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _reply_to(asked: DNSRecord) -> DNSRecord:
    reply = DNSRecord(DNSHeader(id=asked.header.id, qr=1, aa=1, ra=1, rd=asked.header.rd), q=asked.q)
    if any(extra.rtype == QTYPE.OPT for extra in asked.ar):
        reply.add_ar(EDNS0(udp_len=_OUR_BUFFER))
    return reply


def _failure(asked: DNSRecord, code: int) -> DNSRecord:
    reply = _reply_to(asked)
    reply.header.rcode = code
    reply.header.aa = int(code == RCODE.NXDOMAIN)
    return reply


def _asker_limit(asked: DNSRecord) -> int:
    """Return how many bytes the asker takes in one datagram (RFC 6891 6.2.3)."""
    sizes = [extra.edns_len for extra in asked.ar if extra.rtype == QTYPE.OPT]
    return max(_PLAIN_LIMIT, *sizes) if sizes else _PLAIN_LIMIT


def _packed(reply: DNSRecord, limit: int) -> bytes:
    data = bytes(reply.pack())
    return data if len(data) <= limit else _cut(data)


def _cut(answer: bytes) -> bytes:
    """Return only header and question, marked as cut: the asker comes again over TCP."""
    end = _question_end(answer)
    flags = struct.unpack("!H", answer[2:4])[0] | 0x0200
    return answer[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + answer[12:end]


def _malformed(query: bytes) -> bytes:
    """Answer FORMERR to what has at least a header and is no answer itself."""
    if len(query) < 12 or query[2] & 0x80:
        return b""
    return query[:2] + struct.pack("!HHHHH", 0x8000 | RCODE.FORMERR, 0, 0, 0, 0)
