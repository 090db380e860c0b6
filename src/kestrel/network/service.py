"""The network of all sandboxes on this host, as the engine holds it.

`ready` makes a plan (`explain` prints it) and carries it out: bridge, sysctls, firewall, resolver. `connect` gives a
sandbox its address, cable, ports and names, `disconnect` takes them back. What must outlive the daemon is in three
places that outlive it: leases in SQLite, links and firewall in the kernel. So a daemon that starts again calls
`ready` and then `recover` with the sandboxes that are alive, and no packet is lost meanwhile.

All of it may be repeated, and after any failure what was begun is undone. Kernel work happens in a thread of our own,
one thing at a time, since netlink and libnftables answer in under a millisecond; links are removed in another, for
the kernel takes some 15 ms to let go of one.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, TypeVar

from kestrel.base.db import Database
from kestrel.base.errors import FailedPrecondition, KestrelError, NotFound
from kestrel.linux import conntrack, netlink, nftables
from kestrel.network import bridge, firewall, host, ipam
from kestrel.network.model import Endpoint, Plan, PortMapping, PortRequest, Settings
from kestrel.network.names import Names
from kestrel.network.ports import Reservations

if TYPE_CHECKING:
    from kestrel.network.dns import Resolver

_log = logging.getLogger(__name__)
_FORWARD = "net.ipv4.ip_forward"

T = TypeVar("T")


class NetworkService:
    """One bridge network. Use from one event loop; `close` leaves the kernel's state, `down` removes it."""

    def __init__(self, database: Database, settings: Settings | None = None) -> None:
        database.migrate(ipam.MIGRATIONS)
        self._database = database
        self.settings = settings or Settings()
        self.names = Names()
        self.notes: tuple[str, ...] = ()
        """What is missing here and what that costs; known after `ready`."""
        self._endpoints: dict[str, Endpoint] = {}
        self._reservations = Reservations()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="kestrel-network")
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="kestrel-network-remover")
        self._links: netlink.Socket | None = None
        self._nft: nftables.Nftables | None = None
        self._plan: Plan | None = None
        self._bridge_index = 0
        self._resolver: Resolver | None = None
        self._removals: dict[str, asyncio.Future[None]] = {}
        self._starting = asyncio.Lock()

    # -- what the engine calls -------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Bring bridge, sysctls, firewall and resolver into place; nothing happens the second time.

        Raises PermissionDenied without the rights, FailedPrecondition when the kernel or the machine lacks something,
        each naming it and its cost.
        """
        async with self._starting:
            if self._plan is not None:
                return
            plan = await self._in_worker(self._raise_up)
            if self.settings.serve_names:
                await self._serve_names(plan)
            self._plan = plan
            for note in self.notes:
                _log.warning("%s", note)

    async def explain(self) -> list[str]:
        """Return what `ready` does or did, line by line, without doing anything."""
        plan = self._plan if self._plan is not None else await self._in_worker(self._make_plan)
        return plan.lines()

    async def connect(
        self, sandbox: str, netns: int, names: Sequence[str] = (), ports: Sequence[PortRequest] = ()
    ) -> Endpoint:
        """Connect the network namespace behind descriptor `netns`; calling it again gives the same address.

        Raises Conflict for a port that is taken (naming it and its owner), InvalidArgument for one that makes no
        sense, ResourceExhausted when no address is left. After a failure nothing of the sandbox remains here.
        """
        await self.ready()
        wanted = [PortMapping.of(port) for port in ports]
        if (removal := self._removals.get(self._link_name(sandbox))) is not None:
            await asyncio.wait([removal])
        return await self._in_worker(lambda: self._connect(sandbox, netns, tuple(names), wanted))

    async def disconnect(self, sandbox: str) -> None:
        """Take a sandbox's ports, names and address back; fine when it has none.

        The cable goes a moment later: nobody waits while the kernel lets go of it, but `recover`, `down` and `close`.
        """
        link = await self._in_worker(lambda: self._release(sandbox))
        if link:
            removal = asyncio.get_running_loop().run_in_executor(self._remover, _remove_link, link)
            self._removals[link] = removal
            removal.add_done_callback(lambda done: self._removed(link, done))

    def _removed(self, link: str, done: "asyncio.Future[None]") -> None:
        self._removals.pop(link, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            _log.warning("the link %s stays until the next start: %s", link, error)

    async def _removals_done(self) -> None:
        await asyncio.gather(*self._removals.values(), return_exceptions=True)

    async def recover(self, live: Collection[str]) -> dict[str, Endpoint]:
        """After a restart: keep the endpoints of `live` sandboxes, take back all others; returns those kept.

        A live sandbox whose cable is gone is left out: it has no network any more.
        """
        await self.ready()
        kept, stale = await self._in_worker(lambda: self._adopt(live))
        for sandbox in stale:
            await self.disconnect(sandbox)
        await self._removals_done()
        await self._in_worker(self._remove_orphans)
        return kept

    def endpoint(self, sandbox: str) -> Endpoint:
        """Return a sandbox's place in the network. Raises NotFound when it has none."""
        if sandbox not in self._endpoints:
            raise NotFound(f"sandbox {sandbox[:12]} is not connected to the network")
        return self._endpoints[sandbox]

    def endpoints(self) -> list[Endpoint]:
        """Return every connected sandbox's place, ordered by address as text."""
        return sorted(self._endpoints.values(), key=lambda endpoint: endpoint.address)

    async def down(self) -> None:
        """Remove every trace: cables, bridge, firewall table and marks, sysctls as they were, leases."""
        await self._stop_resolver()
        await self._removals_done()
        await self._in_worker(self._tear_down)
        self._plan = None

    async def close(self) -> None:
        """End our part and leave the kernel's, so that running sandboxes go on."""
        await self._stop_resolver()
        await self._removals_done()
        await self._in_worker(self._let_go)
        self._worker.shutdown()
        self._remover.shutdown()
        self._plan = None

    # -- the rest runs in the worker thread ------------------------------------------------------------------------

    async def _in_worker(self, action: "Callable[[], T]") -> T:
        try:
            # Shielded: a caller that gives up must not leave half a change behind unnoticed.
            return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, action))
        except KestrelError:
            raise
        except OSError as error:
            raise FailedPrecondition(f"the network of containers cannot be changed: {error}") from error

    def _kernel(self) -> "tuple[netlink.Socket, nftables.Nftables]":
        """Open what talks to the kernel, once. Each thing that is missing has its own sentence."""
        if self._links is None:
            host.require_rights()
            self._links = netlink.Socket()
        if self._nft is None:
            try:
                opened = nftables.Nftables()
            except nftables.NftablesMissingError as error:
                raise FailedPrecondition(
                    "libnftables is not installed, so containers could neither reach out nor publish ports",
                    hint="apt-get install libnftables1, or use the networks host and none",
                ) from error
            try:
                opened.tables()
            except nftables.NftablesError as error:
                opened.close()
                raise FailedPrecondition(
                    f"this kernel has no nf_tables ({error}), so containers could neither reach out nor publish ports",
                    hint="load the module nf_tables, or use the networks host and none",
                ) from error
            self._nft = opened
        return self._links, self._nft

    def _make_plan(self) -> Plan:
        links, nft = self._kernel()
        network = self._network(links)
        items = nft.list_json("ruleset")
        drops = firewall.foreign_drops(items, self.settings.name)
        notes = _notes(drops, self.settings)
        return Plan(
            bridge=self.settings.bridge,
            subnet=network,
            gateway=ipam.Leases.gateway(network),
            mtu=host.outward_mtu(links),
            sysctls=((_FORWARD, "1"), (f"net.ipv4.conf.{self.settings.bridge}.route_localnet", "1")),
            ruleset=self._ruleset(network),
            foreign=tuple(self._foreign(items, drops)),
            notes=tuple(notes),
        )

    def _foreign(self, items: "list[dict[str, object]]", drops: "list[tuple[str, str, str, str]]") -> list[str]:
        """Old marks out, new marks in: so it can be repeated, and follows what others changed meanwhile."""
        mark = self.settings.bridge
        opening = firewall.open_foreign(drops, self.settings.bridge, mark) if self.settings.open_foreign else []
        return firewall.close_foreign(items, mark) + opening

    def _network(self, links: netlink.Socket) -> IPv4Network:
        state = {row["key"]: row["value"] for row in self._database.query("SELECT key, value FROM network_state")}
        kept = IPv4Network(state["subnet"]) if "subnet" in state else None
        if kept and links.link(self.settings.bridge) is not None and self.settings.subnet in ("", str(kept)):
            return kept  # it is in use, by us
        return ipam.choose(self.settings.subnet, kept, host.used_networks(links, self.settings.bridge))

    def _ruleset(self, network: IPv4Network) -> str:
        """Return the whole table as it should be now: rules, and an element for every published port."""
        leases = self._leases_of_any_network().all()
        published = [(port, str(lease.address)) for lease in leases for port in _ports_from(lease.ports)]
        return firewall.ruleset(self.settings.name, self.settings.bridge, network, published)

    def _leases_of_any_network(self) -> ipam.Leases:
        return ipam.Leases(self._database, ipam.CANDIDATES[0])

    def _raise_up(self) -> Plan:
        links, nft = self._kernel()
        if links.link(self.settings.bridge) is None:
            # No bridge, no cables: the machine restarted, or somebody removed it. Old leases mean nothing now.
            self._database.execute("DELETE FROM network_endpoint")
        plan = self._make_plan()
        self.notes = plan.notes
        self._bridge_index = bridge.ensure(links, plan.bridge, plan.subnet, plan.mtu)
        self._set_state("subnet", str(plan.subnet))
        for name, value in plan.sysctls:
            self._set_sysctl(name, value)
        nft.run(plan.ruleset)
        if plan.foreign:
            nft.run("\n".join(plan.foreign))
        return plan

    def _set_sysctl(self, name: str, value: str) -> None:
        before = host.read_sysctl(name)
        if before == value:
            return
        if self.settings.bridge not in name:  # those of the bridge go with it
            self._database.execute("INSERT OR IGNORE INTO network_state VALUES (?, ?)", (f"sysctl {name}", before))
        host.write_sysctl(name, value)

    def _set_state(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO network_state VALUES (?, ?)", (key, value))

    async def _serve_names(self, plan: Plan) -> None:
        from kestrel.network.dns import Resolver

        resolver = Resolver(self.names, str(plan.gateway), plan.subnet, domain=self.settings.domain)
        try:
            await resolver.start()
        except KestrelError as error:
            self.notes = (
                *self.notes,
                f"{error}; containers use the host's resolvers and do not find each other by name",
            )
            return
        self._resolver = resolver

    async def _stop_resolver(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None

    def _connect(self, sandbox: str, netns: int, names: tuple[str, ...], wanted: list[PortMapping]) -> Endpoint:
        links, nft = self._kernel()
        plan = self._plan
        if plan is None:
            raise FailedPrecondition("the network is down")
        self._release_ports(sandbox)
        ports = self._reservations.take(sandbox, wanted)
        try:
            lease = ipam.Leases(self._database, plan.subnet).take(sandbox, json.dumps(names), _ports_to(ports))
            endpoint = self._describe(lease, plan)
            bridge.attach(links, endpoint, netns, self._bridge_index, plan.mtu)
            if (firewall.FAMILY, self.settings.name) not in nft.tables():
                # Somebody ran `nft flush ruleset`, as a restart of nftables.service does.
                _log.warning("the firewall table %s was removed by somebody; it is put back", self.settings.name)
                nft.run(self._ruleset(plan.subnet))
            elif ports:
                nft.run(firewall.publish(self.settings.name, ports, endpoint.address))
            _redirect_udp(ports)
        except BaseException:
            link = self._release(sandbox)
            bridge.detach(links, link or self._link_name(sandbox))
            raise
        self._endpoints[sandbox] = endpoint
        self.names.put(sandbox, names, endpoint.address)
        return endpoint

    def _describe(self, lease: ipam.Lease, plan: Plan) -> Endpoint:
        return Endpoint(
            sandbox=lease.sandbox,
            address=str(lease.address),
            prefix=plan.subnet.prefixlen,
            gateway=str(plan.gateway),
            mac=ipam.mac(lease.address),
            link=self._link_name(lease.sandbox),
            ports=_ports_from(lease.ports),
            names=tuple(json.loads(lease.names)),
            resolver=str(plan.gateway) if self._resolver is not None else "",
        )

    def _link_name(self, sandbox: str) -> str:
        # 15 characters are all a link's name may have (IFNAMSIZ).
        digits = "".join(c for c in sandbox if c.isalnum())
        return f"{self.settings.name[:5]}{digits[:10]}"

    def _release_ports(self, sandbox: str) -> None:
        old = self._endpoints.get(sandbox)
        nft = self._nft
        if old is not None and old.ports and nft and (firewall.FAMILY, self.settings.name) in nft.tables():
            nft.run(firewall.withdraw(self.settings.name, old.ports, old.address))
        self._reservations.give_back(sandbox)

    def _release(self, sandbox: str) -> str:
        """Take back everything but the cable; returns the cable's name, empty when there was nothing."""
        self.names.drop(sandbox)
        endpoint = self._endpoints.get(sandbox) or self._from_lease(sandbox)
        if endpoint is None:
            self._reservations.give_back(sandbox)
            return ""
        _, nft = self._kernel()
        if endpoint.ports and (firewall.FAMILY, self.settings.name) in nft.tables():
            nft.run(firewall.withdraw(self.settings.name, endpoint.ports, endpoint.address))
            _redirect_udp(endpoint.ports, endpoint.address)
        self._reservations.give_back(sandbox)
        self._leases_of_any_network().give_back(sandbox)
        self._endpoints.pop(sandbox, None)
        return endpoint.link

    def _from_lease(self, sandbox: str) -> Endpoint | None:
        found = [lease for lease in self._leases_of_any_network().all() if lease.sandbox == sandbox]
        if not found:
            return None
        plan = self._plan or self._make_plan()
        return self._describe(found[0], plan)

    def _adopt(self, live: Collection[str]) -> tuple[dict[str, Endpoint], list[str]]:
        links, _ = self._kernel()
        plan = self._plan
        assert plan is not None  # recover() waits for ready()
        plugged = set(bridge.ports(links, self.settings.bridge))
        kept, stale = {}, []
        for lease in self._leases_of_any_network().all():
            endpoint = self._describe(lease, plan)
            if lease.sandbox not in live or endpoint.link not in plugged:
                stale.append(lease.sandbox)
                continue
            try:
                self._reservations.take(lease.sandbox, endpoint.ports)
            except KestrelError as error:
                # Somebody took the port while no daemon held it. The firewall goes on leading it to the sandbox.
                _log.warning("sandbox %s: %s", lease.sandbox[:12], error)
            kept[lease.sandbox] = self._endpoints[lease.sandbox] = endpoint
            self.names.put(lease.sandbox, endpoint.names, endpoint.address)
        return kept, stale

    def _remove_orphans(self) -> None:
        """Remove cables of ours that no lease speaks of: a daemon died between making one and writing it down."""
        links, _ = self._kernel()
        known = {endpoint.link for endpoint in self._endpoints.values()}
        for link in bridge.ports(links, self.settings.bridge):
            if link not in known and link.startswith(self.settings.name[:5]):
                bridge.detach(links, link)

    def _tear_down(self) -> None:
        links, nft = self._kernel()
        for link in bridge.ports(links, self.settings.bridge):
            bridge.detach(links, link)
        bridge.detach(links, self.settings.bridge)
        nft.run(firewall.remove(self.settings.name))
        closing = firewall.close_foreign(nft.list_json("ruleset"), self.settings.bridge)
        if closing:
            nft.run("\n".join(closing))
        self._restore_sysctls(links)
        self._database.execute("DELETE FROM network_endpoint")
        self._endpoints.clear()
        self.names = Names()
        self._reservations.close()
        self._let_go()

    def _restore_sysctls(self, links: netlink.Socket) -> None:
        others = bridge.others(links, self.settings.bridge)
        for row in self._database.query("SELECT key, value FROM network_state WHERE key LIKE 'sysctl %'"):
            name = row["key"].removeprefix("sysctl ")
            if name == _FORWARD and others:
                _log.warning("%s stays 1: the bridge %s is there and may need it", name, others[0])
            else:
                host.write_sysctl(name, row["value"])
            self._database.execute("DELETE FROM network_state WHERE key = ?", (row["key"],))

    def _let_go(self) -> None:
        self._reservations.close()
        if self._links is not None:
            self._links.close()
            self._links = None
        if self._nft is not None:
            self._nft.close()
            self._nft = None


def _remove_link(name: str) -> None:
    with netlink.Socket() as links:
        bridge.detach(links, name)


def _redirect_udp(ports: Sequence[PortMapping], address: str = "") -> None:
    """Let UDP flows find out anew where a port leads."""
    numbers = frozenset(port.host_port for port in ports if port.protocol == "udp")
    if numbers:
        conntrack.forget_udp(address, numbers)


def _ports_to(ports: Sequence[PortMapping]) -> str:
    return json.dumps([asdict(port) for port in ports])


def _ports_from(text: str) -> tuple[PortMapping, ...]:
    return tuple(PortMapping(**fields) for fields in json.loads(text))


def _notes(drops: "list[tuple[str, str, str, str]]", settings: Settings) -> list[str]:
    notes = []
    for family, table, chain, hook in drops:
        what = "let their packets through" if hook == "forward" else "let their questions for names in"
        if settings.open_foreign:
            notes.append(
                f"the firewall chain {family} {table} {chain} drops by policy; rules were added there to {what}"
            )
        else:
            notes.append(f"the firewall chain {family} {table} {chain} drops by policy and does not {what}")
    if host.legacy_iptables():
        notes.append(
            "the old iptables has a filter table here, which cannot be read or changed through nftables; if its FORWARD"
            f" chain drops, containers have no way out until: iptables-legacy -I FORWARD -i {settings.bridge} -j ACCEPT"
        )
    return notes
