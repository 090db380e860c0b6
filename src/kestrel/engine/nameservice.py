"""The three files that give a sandbox its name and its way to find others: hostname, hosts and resolv.conf.

They are made by us, per sandbox, and bind-mounted into each of its containers, as docker and the kubelet do; nothing
of the host's own files reaches a container except, with host networking, the host's resolv.conf.
"""

import os
from pathlib import Path

from kestrel.base.ids import short
from kestrel.engine.model import DnsConfig, Sandbox

FILES = ("hostname", "hosts", "resolv.conf")
HOST_RESOLV_CONF = Path("/etc/resolv.conf")


def hostname(sandbox: Sandbox) -> str:
    """The name a sandbox has for itself: what was asked for, or the first digits of its id."""
    return sandbox.config.hostname or short(sandbox.id)


def hosts(sandbox: Sandbox) -> str:
    """The text of /etc/hosts."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    lines.append(f"{sandbox.address or '127.0.1.1'}\t{hostname(sandbox)}")
    lines += [f"{address}\t{' '.join(names)}" for address, names in sandbox.config.hosts]
    return "\n".join(lines) + "\n"


def resolv_conf(dns: DnsConfig, servers: tuple[str, ...]) -> str:
    """The text of /etc/resolv.conf; `servers` are used when the configuration names none (`man 5 resolv.conf`)."""
    lines = [f"nameserver {server}" for server in (dns.servers or servers)]
    if dns.searches:
        lines.insert(0, f"search {' '.join(dns.searches)}")
    if dns.options:
        lines.append(f"options {' '.join(dns.options)}")
    return "\n".join(lines) + "\n"


def write(sandbox: Sandbox, directory: Path, resolver: str) -> None:
    """Write the files of a sandbox, which its root owns.

    `resolver` is the address of the platform's own, empty when it has none.
    """
    if sandbox.config.dns.servers or resolver:
        resolv = resolv_conf(sandbox.config.dns, (resolver,))
    elif HOST_RESOLV_CONF.exists():
        resolv = HOST_RESOLV_CONF.read_text(errors="replace")
    else:
        resolv = ""
    texts = {"hostname": hostname(sandbox) + "\n", "hosts": hosts(sandbox), "resolv.conf": resolv}
    for name, text in texts.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, sandbox.first_id, sandbox.first_id)
