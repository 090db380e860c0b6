"""The resolver's answers as values, and its life on the loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import Conflict
from kestrel.network.dns import Resolver, Upstreams
from kestrel.network.names import Names

NETWORK = IPv4Network("10.88.0.0/16")


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def resolver(names: Names) -> AsyncIterator[Resolver]:
    made = Resolver(names, "127.0.0.1", NETWORK, Upstreams(list))
    yield made
    await made.close()


async def ask(resolver: Resolver, name: str, kind: str = "A", *, stream: bool = False) -> DNSRecord:
    return DNSRecord.parse(await resolver.answer(bytes(DNSRecord.question(name, kind).pack()), stream=stream))


async def test_a_known_name_without_that_record_is_no_error(resolver: Resolver, names: Names) -> None:
    names.put("a", ["web"], "10.88.0.2")
    reply = await ask(resolver, "web", "AAAA")
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])
    assert reply.header.aa == 1


async def test_an_unknown_single_label_does_not_exist(resolver: Resolver) -> None:
    assert (await ask(resolver, "nobody")).header.rcode == RCODE.NXDOMAIN


async def test_nobody_else_is_asked_for_names_of_the_cluster(resolver: Resolver) -> None:
    for name in ("db.default.svc.cluster.local", "cluster.local"):
        assert (await ask(resolver, name)).header.rcode == RCODE.NXDOMAIN
    assert (await ask(resolver, "notcluster.local")).header.rcode == RCODE.SERVFAIL


async def test_an_unknown_address_of_our_network_does_not_exist(resolver: Resolver) -> None:
    assert (await ask(resolver, "9.0.88.10.in-addr.arpa", "PTR")).header.rcode == RCODE.NXDOMAIN


async def test_without_upstreams_other_names_fail_for_now(resolver: Resolver) -> None:
    assert (await ask(resolver, "example.test")).header.rcode == RCODE.SERVFAIL


async def test_an_answer_too_big_for_a_datagram_is_cut_and_whole_over_a_stream(
    resolver: Resolver, names: Names
) -> None:
    for number in range(100):
        names.put(f"s{number}", ["web"], f"10.88.1.{number}")
    cut = await ask(resolver, "web")
    assert (cut.header.tc, len(cut.rr)) == (1, 0)
    whole = await ask(resolver, "web", stream=True)
    assert (whole.header.tc, len(whole.rr)) == (0, 100)
    big = DNSRecord.question("web", "A")
    big.add_ar(EDNS0(udp_len=4096))
    offered = DNSRecord.parse(await resolver.answer(bytes(big.pack())))
    assert (offered.header.tc, len(offered.rr)) == (0, 100)
    assert any(extra.rtype == QTYPE.OPT for extra in offered.ar)


async def test_an_answer_is_not_answered(resolver: Resolver, names: Names) -> None:
    names.put("a", ["web"], "10.88.0.2")
    reply = await resolver.answer(bytes(DNSRecord.question("web").pack()))
    assert await resolver.answer(reply) == b""


@given(data=st.binary(max_size=64))
def test_rubbish_is_answered_with_an_error_or_not_at_all(data: bytes) -> None:
    resolver = Resolver(Names(), "127.0.0.1", NETWORK, Upstreams(list))
    reply = asyncio.run(resolver.answer(data))
    assert reply == b"" or (reply[:2] == data[:2] and reply[2] & 0x80)


async def test_it_answers_over_udp_and_tcp(resolver: Resolver, names: Names) -> None:
    names.put("a", ["web"], "10.88.0.2")
    port = await resolver.start(0)
    question = DNSRecord.question("web")
    for tcp in (False, True):
        data = await asyncio.to_thread(question.send, "127.0.0.1", port, tcp, 2)
        assert str(DNSRecord.parse(data).rr[0].rdata) == "10.88.0.2"


async def test_a_connection_that_says_nothing_does_not_hold_up_closing(resolver: Resolver) -> None:
    port = await resolver.start(0)
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"\x00")
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await resolver.close()


async def test_a_port_somebody_has_is_a_conflict_that_names_it(resolver: Resolver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"127\.0\.0\.1:{port}.*in use by"):
            await resolver.start(port)
