"""Docker's short forms for ports, mounts and variables, read into the engine's values. Pure."""

import os
from collections.abc import Iterable

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.engine import Mount, PortMapping

LIMITS = frozenset(
    "as core cpu data fsize memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
"""What the kernel limits of each process (`man 2 getrlimit`), in docker's words."""


def port(text: str) -> PortMapping:
    """Read `[IP:][HOST:]PORT[/PROTO]`; an empty host port lets the host choose."""
    rest, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in ("tcp", "udp"):
        raise InvalidArgument(f"unknown protocol {protocol!r} in {text!r}", hint="write /tcp or /udp")
    front, _, container = rest.rpartition(":")
    if front.startswith("["):
        address, _, host = front[1:].partition("]")
        host = host.removeprefix(":")
    else:
        address, _, host = front.rpartition(":")
    return PortMapping(
        container_port=_port(container, text),
        host_port=_port(host, text) if host else 0,
        host_ip=address,
        protocol=protocol,
    )


def _port(digits: str, text: str) -> int:
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise InvalidArgument(
            f"invalid port in {text!r}", hint="write [IP:][HOST:]PORT[/PROTO], such as 8080:80, with ports 1 to 65535"
        )
    return int(digits)


def volume(text: str) -> Mount:
    """Read `SOURCE:TARGET[:ro]`: a source with a slash is a host path, any other a volume's name."""
    source, colon, rest = text.partition(":")
    target, _, options = rest.partition(":")
    flags = set(filter(None, options.split(",")))
    unknown = flags - {"ro", "rw", "z", "Z"}
    if not colon or not source or not target.startswith("/") or unknown:
        wrong = f"unknown option {min(unknown)!r} in volume {text!r}" if unknown else f"invalid volume {text!r}"
        raise InvalidArgument(wrong, hint="write SOURCE:TARGET[:ro] with an absolute TARGET")
    if source.startswith(("/", ".", "~")):
        return Mount(source=os.path.abspath(os.path.expanduser(source)), target=target, read_only="ro" in flags)
    return Mount(kind="volume", source=source, target=target, read_only="ro" in flags)


def device(text: str) -> tuple[str, str, str]:
    """Read `SOURCE[:TARGET[:ACCESS]]` as docker does; a second part of the letters r, w and m alone is the access."""
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    if target and not set(target) - set("rwm"):
        target, access = "", target
    if not source.startswith("/") or (target and not target.startswith("/")) or set(access) - set("rwm"):
        raise InvalidArgument(f"invalid device {text!r}", hint="write SOURCE[:TARGET[:rwm]] with absolute paths")
    return source, target, access


def label(text: str) -> tuple[str, str]:
    """Read `KEY=VALUE`; a missing value is empty."""
    key, _, value = text.partition("=")
    if not key:
        raise InvalidArgument(f"invalid label {text!r}", hint="write KEY=VALUE")
    return key, value


def ulimits(texts: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """Read several; of the same name the last one counts."""
    return tuple({limit[0]: limit for limit in map(ulimit, texts)}.values())


def ulimit(text: str) -> tuple[str, int, int]:
    """Read `NAME=SOFT[:HARD]`; -1 is no limit, and a hard limit that is not given is the soft one."""
    name, _, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if name not in LIMITS:
        close = nearest(name, LIMITS)
        hint = f"did you mean `{close}`?" if close else f"there are {', '.join(sorted(LIMITS))}"
        raise InvalidArgument(f"unknown limit {name!r} in {text!r}", hint=hint)
    low, high = _limit(soft, text), _limit(hard if colon else soft, text)
    if high >= 0 and not 0 <= low <= high:
        raise InvalidArgument(f"the soft limit of {text!r} is above the hard one", hint="write NAME=SOFT:HARD")
    return name, low, high


def _limit(digits: str, text: str) -> int:
    if digits == "-1" or (digits.isascii() and digits.isdigit() and int(digits) < 1 << 63):
        return int(digits)
    raise InvalidArgument(f"invalid limit {text!r}", hint="write NAME=SOFT[:HARD], such as nofile=1024:4096")
