"""The bridge network for real: in a network namespace that plays the host, with sandboxes and an outside world."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest
from dnslib import RCODE, RR, DNSRecord

from kestrel.base.db import Database
from kestrel.base.errors import Conflict, FailedPrecondition, InvalidArgument, Unimplemented
from kestrel.linux import netlink
from kestrel.linux.nftables import Nftables
from kestrel.linux.syscalls import setns, unshare
from kestrel.network import NetworkService, PortMapping, Settings, host
from kestrel.network.dns import Resolver, Upstreams
from kestrel.network.names import Names

CLONE_NEWNET = 0x40000000
OUTSIDE, NEAR = "198.51.100.2", "198.51.100.1"
T = TypeVar("T")

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")]


def inside(netns: int, action: Callable[[], T]) -> T:
    """Do something in a namespace, in a thread that ends there."""
    result: list[T] = []
    failure: list[BaseException] = []

    def visit() -> None:
        try:
            setns(netns, CLONE_NEWNET)
            result.append(action())
        except (OSError, AssertionError) as error:
            failure.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def new_netns() -> int:
    found: list[int] = []

    def visit() -> None:
        unshare(CLONE_NEWNET)
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    return found[0]


@dataclass
class World:
    """`host` is where the test runs; `outside` is behind a cable from it."""

    host: int
    outside: int
    database: Database


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    stage, outside = new_netns(), new_netns()
    database = Database(tmp_path / "kestrel.db")
    setns(stage, CLONE_NEWNET)
    try:
        with netlink.Socket() as links:
            links.run(netlink.set_up(1))
            links.run(netlink.add_bridge("ktestwan", "02:00:00:00:00:01"))
            wan = links.link("ktestwan")
            assert wan is not None
            links.run(
                netlink.add_address(wan.index, NEAR, 24),
                netlink.set_up(wan.index),
                netlink.add_veth(
                    "ktestout", peer="eth0", peer_mac="02:00:00:00:00:02", netns=outside, master=wan.index
                ),
                netlink.set_up(name="ktestout"),
            )
        with netlink.Socket(outside) as links:
            end = links.link("eth0")
            assert end is not None
            links.run(netlink.set_up(1), netlink.add_address(end.index, OUTSIDE, 24), netlink.set_up(end.index))
        yield World(stage, outside, database)
    finally:
        setns(home, CLONE_NEWNET)
        database.close()
        for fd in (home, stage, outside):
            os.close(fd)


@pytest.fixture
async def network(world: World) -> AsyncIterator[NetworkService]:
    service = NetworkService(world.database, Settings(name="ktest"))
    try:
        yield service
    finally:
        await service.close()


@pytest.fixture
def netns() -> Iterator[Callable[[], int]]:
    made: list[int] = []

    def make() -> int:
        made.append(new_netns())
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


@contextmanager
def echo(netns: int, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[None]:
    """Answer each TCP connection or datagram in a namespace with the peer's address."""

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_INET, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("", port))
        if kind == socket.SOCK_STREAM:
            opened.listen()
        return opened

    server = inside(netns, listen)

    def serve() -> None:
        while True:
            try:
                if kind == socket.SOCK_DGRAM:
                    data, peer = server.recvfrom(100)
                    if data == b"stop":
                        return
                    server.sendto(peer[0].encode(), peer)
                else:
                    connection, peer = server.accept()
                    connection.sendall(peer[0].encode())
                    connection.close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        if kind == socket.SOCK_DGRAM:
            inside(netns, lambda: _stop(port))
        else:
            server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def _stop(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"stop", ("127.0.0.1", port))


def _listen(opened: socket.socket, port: int) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind(("0.0.0.0", port))
    opened.listen()


def ask(
    address: str, port: int, netns: int | None = None, kind: int = socket.SOCK_STREAM, *, timeout: float = 5.0
) -> str:
    """Return what an echo at an address answers: who it thinks is asking."""

    def talk() -> str:
        with socket.socket(socket.AF_INET, kind) as client:
            client.settimeout(timeout)
            client.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                client.send(b"?")
            return client.recv(100).decode()

    return talk() if netns is None else inside(netns, talk)


def resolve(server: str, name: str, kind: str, netns: int, *, tcp: bool = False) -> DNSRecord:
    query = DNSRecord.question(name, kind)
    return DNSRecord.parse(inside(netns, lambda: query.send(server, 53, tcp=tcp, timeout=2)))


def listing() -> tuple[list[str], list[tuple[str, str]], str]:
    """What the host looks like: links, tables, forwarding."""
    with netlink.Socket() as links, Nftables() as nft:
        return sorted(link.name for link in links.links()), nft.tables(), host.read_sysctl("net.ipv4.ip_forward")


async def thread(action: Callable[[], T]) -> T:
    return await asyncio.to_thread(action)


async def test_two_sandboxes_talk_to_each_other(network: NetworkService, netns: Callable[[], int]) -> None:
    one, two = netns(), netns()
    first = await network.connect("a" * 64, one)
    second = await network.connect("b" * 64, two)
    assert first.address != second.address
    with echo(two, 8000):
        assert ask(second.address, 8000, one) == first.address


async def test_outbound_traffic_leaves_with_the_hosts_address(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    sandbox = netns()
    await network.connect("a" * 64, sandbox)
    with echo(world.outside, 9000):
        assert ask(OUTSIDE, 9000, sandbox) == NEAR


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
async def test_a_published_port_answers_from_everywhere(
    network: NetworkService, world: World, netns: Callable[[], int], kind: int
) -> None:
    server, client = netns(), netns()
    protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
    port = PortMapping(container_port=80, host_port=8080, protocol=protocol)
    endpoint = await network.connect("a" * 64, server, ports=[port])
    neighbour = await network.connect("b" * 64, client)
    assert endpoint.ports == (port,)
    with echo(server, 80, kind):
        assert ask("127.0.0.1", 8080, kind=kind) == endpoint.gateway, "from the host's loopback"
        assert ask(NEAR, 8080, kind=kind) == NEAR, "from the host by its own address"
        assert ask(NEAR, 8080, world.outside, kind) == OUTSIDE, "from outside, with the asker's address kept"
        assert ask(NEAR, 8080, client, kind) == neighbour.gateway, "from a neighbour by the host's address"
        assert ask(NEAR, 8080, server, kind) == neighbour.gateway, "from itself by the host's address"
    await network.disconnect("a" * 64)
    with pytest.raises((ConnectionRefusedError, TimeoutError)):
        ask("127.0.0.1", 8080, kind=kind, timeout=0.5)


async def test_a_port_published_on_one_address_answers_there_only(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    server = netns()
    await network.connect("a" * 64, server, ports=[PortMapping(container_port=80, host_port=8080, host_ip="127.0.0.1")])
    with echo(server, 80):
        assert ask("127.0.0.1", 8080)
        with pytest.raises(ConnectionRefusedError):
            ask(NEAR, 8080)
        with pytest.raises(ConnectionRefusedError):
            ask(NEAR, 8080, world.outside)


async def test_the_host_chooses_a_port_when_none_is_named(network: NetworkService, netns: Callable[[], int]) -> None:
    server = netns()
    endpoint = await network.connect("a" * 64, server, ports=[PortMapping(container_port=80)])
    assert endpoint.ports[0].host_port > 0
    with echo(server, 80):
        assert ask("127.0.0.1", endpoint.ports[0].host_port)


async def test_what_is_not_published_is_not_reachable_from_outside(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    server = netns()
    endpoint = await network.connect("a" * 64, server)
    with netlink.Socket(world.outside) as links:
        end = links.link("eth0")
        assert end is not None
        links.run(netlink.add_default_route(end.index, NEAR))
    with echo(server, 80):
        assert ask(endpoint.address, 80), "the host itself may"
        with pytest.raises(TimeoutError):
            ask(endpoint.address, 80, world.outside, timeout=0.5)
        with pytest.raises(TimeoutError):
            ask(endpoint.gateway, 53, world.outside, timeout=0.5)


async def test_a_container_does_not_reach_the_hosts_loopback(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    sandbox = netns()
    endpoint = await network.connect("a" * 64, sandbox)

    def route_loopback_out() -> None:
        host.write_sysctl("net.ipv4.conf.all.route_localnet", "1")
        with netlink.Socket() as links:
            index = links.link("eth0")
            assert index is not None
            route = netlink._ROUTE.pack(socket.AF_INET, 32, 0, 0, 254, 3, 0, 1, 0)
            route += netlink.attribute(1, socket.inet_aton("127.0.0.9"))
            route += netlink.attribute(5, socket.inet_aton(endpoint.gateway))
            route += netlink.attribute(4, index.index.to_bytes(4, "little"))
            links.run(netlink.Request(24, 0x600, route, "adding a route"))

    inside(sandbox, route_loopback_out)
    with echo(world.host, 7000), pytest.raises(TimeoutError):
        ask("127.0.0.9", 7000, sandbox, timeout=0.5)


async def test_a_port_in_use_is_a_conflict_that_names_port_and_owner(
    network: NetworkService, netns: Callable[[], int]
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 8081))
        taken.listen()
        with pytest.raises(Conflict) as caught:
            await network.connect("a" * 64, netns(), ports=[PortMapping(container_port=80, host_port=8081)])
    assert "0.0.0.0:8081/tcp" in str(caught.value)
    assert f"(pid {os.getpid()})" in str(caught.value)
    assert network.endpoints() == []


async def test_a_port_another_sandbox_publishes_is_a_conflict_that_names_it(
    network: NetworkService, netns: Callable[[], int]
) -> None:
    port = PortMapping(container_port=80, host_port=8082)
    await network.connect("a" * 64, netns(), ports=[port])
    with pytest.raises(Conflict, match="published by sandbox aaaaaaaaaaaa"):
        await network.connect("b" * 64, netns(), ports=[port])
    await network.disconnect("a" * 64)
    await network.connect("b" * 64, netns(), ports=[port])


async def test_nobody_else_can_take_a_published_port(network: NetworkService, netns: Callable[[], int]) -> None:
    await network.connect("a" * 64, netns(), ports=[PortMapping(container_port=80, host_port=8083)])
    with socket.socket() as rival, pytest.raises(OSError, match="in use"):
        _listen(rival, 8083)


@pytest.mark.parametrize(
    ("port", "kind"),
    [
        (PortMapping(container_port=80, host_port=80, protocol="sctp"), Unimplemented),
        (PortMapping(container_port=80, host_port=80, host_ip="::1"), Unimplemented),
        (PortMapping(container_port=0, host_port=80), InvalidArgument),
        (PortMapping(container_port=80, host_port=8084, host_ip="203.0.113.77"), InvalidArgument),
        (PortMapping(container_port=80, host_port=80, host_ip="localhost"), InvalidArgument),
    ],
)
async def test_ports_that_make_no_sense_are_refused_and_leave_nothing(
    network: NetworkService, netns: Callable[[], int], port: PortMapping, kind: type[Exception]
) -> None:
    await network.ready()
    before = listing()
    with pytest.raises(kind):
        await network.connect("a" * 64, netns(), ports=[port])
    assert listing() == before


async def test_names_are_answered_on_the_bridge(network: NetworkService, netns: Callable[[], int]) -> None:
    one, two = netns(), netns()
    first = await network.connect("a" * 64, one, names=["Web", "web.default.pod"])
    second = await network.connect("b" * 64, two, names=["web", "db"])
    assert first.resolver == first.gateway

    def addresses(name: str, kind: str = "A", *, tcp: bool = False) -> set[str]:
        return {str(answer.rdata) for answer in resolve(first.resolver, name, kind, one, tcp=tcp).rr}

    assert await thread(lambda: addresses("web")) == {first.address, second.address}
    assert await thread(lambda: addresses("DB", tcp=True)) == {second.address}
    assert await thread(lambda: addresses("web.default.pod.")) == {first.address}
    assert await thread(lambda: addresses("host.docker.internal")) == {first.gateway}
    none = await thread(lambda: resolve(first.resolver, "web", "AAAA", one))
    assert (none.header.rcode, none.rr) == (RCODE.NOERROR, [])
    unknown = await thread(lambda: resolve(first.resolver, "nobody", "A", one))
    assert unknown.header.rcode == RCODE.NXDOMAIN
    backward = ".".join(reversed(second.address.split("."))) + ".in-addr.arpa"
    assert await thread(lambda: addresses(backward, "PTR")) == {"web."}
    await network.disconnect("b" * 64)
    gone = await thread(lambda: resolve(first.resolver, "db", "A", one))
    assert gone.header.rcode == RCODE.NXDOMAIN


async def test_a_restarted_daemon_finds_everything_as_it_was(world: World, netns: Callable[[], int]) -> None:
    server, dead = netns(), netns()
    port = PortMapping(container_port=80, host_port=8085)
    settings = Settings(name="ktest")
    killed = NetworkService(world.database, settings)
    before = await killed.connect("a" * 64, server, names=["web"], ports=[port])
    await killed.connect("d" * 64, dead, ports=[PortMapping(container_port=81, host_port=8086)])
    await killed.close()
    with echo(server, 80):
        assert ask("127.0.0.1", 8085), "while no daemon runs"
        again = NetworkService(world.database, settings)
        try:
            kept = await again.recover({"a" * 64})
            assert kept == {"a" * 64: before}
            assert again.endpoint("a" * 64) == before
            assert ask("127.0.0.1", 8085)
            links, _, _ = listing()
            assert "ktestdddddddddd" not in links
            with pytest.raises(ConnectionRefusedError):
                ask("127.0.0.1", 8086)
            record = await thread(lambda: resolve(before.resolver, "web", "A", server))
            assert [str(answer.rdata) for answer in record.rr] == [before.address]
            with pytest.raises(Conflict, match="published by sandbox"):
                await again.connect("b" * 64, netns(), ports=[port])
            fresh = await again.connect("b" * 64, netns())
            assert fresh.address != before.address
        finally:
            await again.close()


async def test_a_udp_flow_follows_its_port_from_one_sandbox_to_the_next(
    network: NetworkService, netns: Callable[[], int]
) -> None:
    one, two = netns(), netns()
    port = PortMapping(container_port=53, host_port=8090, protocol="udp")

    def ask_again(client: socket.socket) -> str:
        client.send(b"?")
        return client.recv(100).decode()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 8090))
        client.settimeout(2.0)
        client.send(b"before anybody is there")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        first = await network.connect("a" * 64, one, ports=[port])
        with echo(one, 53, socket.SOCK_DGRAM):
            assert ask_again(client) == first.gateway
        await network.disconnect("a" * 64)
        await network.connect("b" * 64, two, ports=[port])
        with echo(two, 53, socket.SOCK_DGRAM):
            assert ask_again(client) == first.gateway


async def test_connecting_again_keeps_the_address(network: NetworkService, netns: Callable[[], int]) -> None:
    sandbox = netns()
    port = PortMapping(container_port=80, host_port=8087)
    first = await network.connect("a" * 64, sandbox, ports=[port])
    second = await network.connect("a" * 64, sandbox, ports=[port])
    assert first == second
    with echo(sandbox, 80):
        assert ask("127.0.0.1", 8087)


async def test_disconnecting_twice_or_never_connected_is_fine(
    network: NetworkService, netns: Callable[[], int]
) -> None:
    await network.disconnect("x" * 64)
    await network.connect("a" * 64, netns())
    await network.disconnect("a" * 64)
    await network.disconnect("a" * 64)


async def test_an_address_is_not_given_out_again_at_once(network: NetworkService, netns: Callable[[], int]) -> None:
    first = await network.connect("a" * 64, netns())
    await network.disconnect("a" * 64)
    second = await network.connect("b" * 64, netns())
    assert first.address != second.address


async def test_down_leaves_nothing(network: NetworkService, world: World, netns: Callable[[], int]) -> None:
    with netlink.Socket() as links:
        links.run(netlink.delete_link("ktestwan"))  # another bridge would keep forwarding on, see below
    before = listing()
    await network.connect("a" * 64, netns(), names=["web"], ports=[PortMapping(container_port=80, host_port=8088)])
    assert listing() != before
    await network.down()
    assert listing() == before
    with socket.socket() as free:
        free.bind(("0.0.0.0", 8088))
    await network.down()
    endpoint = await network.connect("a" * 64, netns())
    assert endpoint.address
    await network.down()
    assert listing() == before


async def test_down_leaves_forwarding_on_for_others_bridges(network: NetworkService, netns: Callable[[], int]) -> None:
    await network.ready()
    await network.down()
    assert host.read_sysctl("net.ipv4.ip_forward") == "1"


async def test_firewalls_of_others_that_drop_are_opened_and_closed_again(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    with Nftables() as nft:
        nft.run(
            "table ip filter {\n chain FORWARD { type filter hook forward priority 0; policy drop; }\n"
            " chain INPUT { type filter hook input priority 0; policy drop; ct state established accept; }\n}"
        )
        before = nft.list_text("ruleset")
        sandbox = netns()
        endpoint = await network.connect("a" * 64, sandbox, names=["web"])
        assert any("ip filter FORWARD drops by policy" in note for note in network.notes)
        with echo(world.outside, 9001):
            assert ask(OUTSIDE, 9001, sandbox) == NEAR
        record = await thread(lambda: resolve(endpoint.resolver, "web", "A", sandbox))
        assert len(record.rr) == 1
        await network.down()
        assert nft.list_text("ruleset") == before


async def test_a_flushed_firewall_is_put_back_with_the_next_sandbox(
    network: NetworkService, world: World, netns: Callable[[], int]
) -> None:
    server, client = netns(), netns()
    port = PortMapping(container_port=80, host_port=8091)
    await network.connect("a" * 64, server, ports=[port])
    with Nftables() as nft:
        nft.run("flush ruleset")
    await network.connect("b" * 64, client)
    with echo(server, 80), echo(world.outside, 9002):
        assert ask("127.0.0.1", 8091)
        assert ask(OUTSIDE, 9002, client) == NEAR
    with Nftables() as nft:
        nft.run("flush ruleset")
    await network.disconnect("a" * 64)


async def test_a_machine_without_libnftables_is_told_what_to_install(
    network: NetworkService, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing()
    with monkeypatch.context() as patch:
        patch.setattr("kestrel.linux.nftables.LIBRARY", "libnftables-that-is-not-there.so")
        with pytest.raises(FailedPrecondition, match="libnftables is not installed") as caught:
            await network.ready()
    assert "apt-get install libnftables1" in str(caught.value.hint)
    assert listing() == before


async def test_a_link_of_the_bridges_name_that_is_no_bridge_is_named(network: NetworkService, world: World) -> None:
    with netlink.Socket() as links:
        links.run(netlink.add_veth("ktest0", peer="far", peer_mac="02:00:00:00:00:09", netns=world.outside, master=0))
    with pytest.raises(FailedPrecondition, match="ktest0 that is no bridge"):
        await network.ready()


async def test_explain_prints_the_plan_before_anything_is_done(network: NetworkService) -> None:
    before = listing()
    lines = await network.explain()
    assert any(line.startswith("link    bridge ktest0") for line in lines)
    assert any("masquerade" in line for line in lines)
    assert listing() == before


async def test_a_subnet_in_use_is_refused(world: World) -> None:
    service = NetworkService(world.database, Settings(name="ktest", subnet="198.51.100.0/25"))
    try:
        with pytest.raises(FailedPrecondition, match=r"198\.51\.100\.0/24"):
            await service.ready()
    finally:
        await service.close()


@contextmanager
def nameserver(address: str, *, silent: bool = False, big: bool = False) -> Iterator[None]:
    """A name server on the host that knows one name, over UDP and TCP."""
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, 53))
    tcp.bind((address, 53))
    tcp.listen()
    ended = threading.Event()

    def reply(query: bytes, *, whole: bool) -> bytes:
        asked = DNSRecord.parse(query)
        answer = asked.reply()
        answer.header.tc = int(big and not whole)
        for number in range(60 if big and whole else 1):
            answer.add_answer(*RR.fromZone(f"known.test 60 A 203.0.113.{number + 1}"))
        return bytes(answer.pack())

    def datagrams() -> None:
        while not ended.is_set():
            data, peer = udp.recvfrom(512)
            if data != b"stop" and not silent:
                udp.sendto(b"\0\0" + reply(data, whole=False)[2:], peer)  # somebody guessing: a wrong id
                udp.sendto(reply(data, whole=False), peer)

    def connections() -> None:
        while True:
            try:
                connection, _ = tcp.accept()
            except OSError:
                return
            with connection:
                query = connection.recv(514)[2:]
                answer = reply(query, whole=True)
                connection.sendall(len(answer).to_bytes(2, "big") + answer)

    threads = [threading.Thread(target=datagrams), threading.Thread(target=connections)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        ended.set()
        udp.sendto(b"stop", (address, 53))
        tcp.shutdown(socket.SHUT_RDWR)
        for each in threads:
            each.join()
        udp.close()
        tcp.close()


@pytest.fixture
async def forwarding(world: World) -> AsyncIterator[Callable[[list[str]], Resolver]]:
    made: list[Resolver] = []

    def make(servers: list[str]) -> Resolver:
        made.append(Resolver(Names(), "127.0.0.99", IPv4Network("10.88.0.0/16"), Upstreams(lambda: servers)))
        return made[-1]

    yield make
    for resolver in made:
        await resolver.close()


async def test_other_names_are_asked_of_the_hosts_resolvers(forwarding: Callable[[list[str]], Resolver]) -> None:
    query = bytes(DNSRecord.question("known.test").pack())
    with nameserver("127.0.0.53"):
        answer = DNSRecord.parse(await forwarding(["127.0.0.53"]).answer(query))
    assert answer.header.id == DNSRecord.parse(query).header.id
    assert [str(record.rdata) for record in answer.rr] == ["203.0.113.1"]


async def test_a_resolver_that_is_silent_is_passed_over_and_no_longer_asked_first(
    forwarding: Callable[[list[str]], Resolver],
) -> None:
    query = bytes(DNSRecord.question("known.test").pack())
    with nameserver("127.0.0.53"), nameserver("127.0.0.54", silent=True):
        resolver = forwarding(["127.0.0.54", "127.0.0.53"])
        assert DNSRecord.parse(await resolver.answer(query)).header.rcode == RCODE.NOERROR
        async with asyncio.timeout(1):
            assert DNSRecord.parse(await resolver.answer(query)).header.rcode == RCODE.NOERROR


async def test_a_cut_answer_is_passed_on_as_cut_and_comes_whole_over_tcp(
    forwarding: Callable[[list[str]], Resolver],
) -> None:
    query = bytes(DNSRecord.question("known.test").pack())
    with nameserver("127.0.0.53", big=True):
        resolver = forwarding(["127.0.0.53"])
        assert DNSRecord.parse(await resolver.answer(query)).header.tc == 1
        whole = DNSRecord.parse(await resolver.answer(query, stream=True))
    assert len(whole.rr) == 60


async def test_no_resolver_that_answers_is_servfail(forwarding: Callable[[list[str]], Resolver]) -> None:
    query = bytes(DNSRecord.question("known.test").pack())
    answer = DNSRecord.parse(await forwarding(["127.0.0.55"]).answer(query))
    assert answer.header.rcode == RCODE.SERVFAIL
