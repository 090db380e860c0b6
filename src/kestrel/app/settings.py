"""Everything that can be chosen about one Kestrel, as one frozen value read from the environment.

Several can run on one machine if each has a root, a run directory, a name and ports of its own: that is how the tests
run beside whatever else is there.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kestrel.base.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`name` is the prefix of all kernel objects of ours (cgroup, bridge, firewall table), nine letters at most."""

    root: Path = Path("/var/lib/kestrel")
    run: Path = Path("/run/kestrel")
    name: str = "kestrel"
    kubernetes_port: int = 6443
    registry_port: int = 5000
    registry_address: str = "127.0.0.1"
    registry_tls: bool = False
    registry_certificate: Path | None = None
    registry_key: Path | None = None
    registry_names: tuple[str, ...] = ()
    registry_htpasswd: Path | None = None
    registry_url: str = ""
    registry_sparse: bool = False
    registry_collect_hours: int = 24
    registry_undo_hours: int = 24
    address: str = "127.0.0.1"
    subnet: str = ""
    node: str = ""
    kubeconfig: Path = Path("~/.kube/config")
    insecure_registries: tuple[str, ...] = ()
    etc: Path = Path("/etc")
    """Where containerd, podman and docker keep what they know of registries and their mirrors."""

    @property
    def socket(self) -> Path:
        """Where the command line reaches the daemon."""
        return self.run / "kestrel.sock"

    @property
    def log(self) -> Path:
        """Where the daemon's own log goes."""
        return self.run / "daemon.log"


_NAME = re.compile(r"[a-z][a-z0-9]{0,8}")


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `KESTREL_*` variables over the defaults. Raises InvalidArgument that names the variable."""
    default = Settings()
    name = environment.get("KESTREL_NAME", default.name)
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"invalid KESTREL_NAME {name!r}", hint="use a letter, then letters and digits, nine at most"
        )
    home = Path(environment.get("HOME", "/root"))
    registries = environment.get("KESTREL_INSECURE_REGISTRIES", "")
    names = environment.get("KESTREL_REGISTRY_NAMES", "")
    return Settings(
        root=Path(environment.get("KESTREL_ROOT", default.root)),
        run=Path(environment.get("KESTREL_RUN", default.run)),
        name=name,
        kubernetes_port=_port(environment, "KESTREL_KUBERNETES_PORT", default.kubernetes_port),
        registry_port=_port(environment, "KESTREL_REGISTRY_PORT", default.registry_port),
        registry_address=environment.get("KESTREL_REGISTRY_ADDRESS", default.registry_address),
        registry_tls=_switch(environment, "KESTREL_REGISTRY_TLS"),
        registry_certificate=_path(environment, "KESTREL_REGISTRY_CERTIFICATE"),
        registry_key=_path(environment, "KESTREL_REGISTRY_KEY"),
        registry_names=tuple(filter(None, names.split(","))),
        registry_htpasswd=_path(environment, "KESTREL_REGISTRY_HTPASSWD"),
        registry_url=environment.get("KESTREL_REGISTRY_URL", ""),
        registry_sparse=_switch(environment, "KESTREL_REGISTRY_SPARSE"),
        registry_undo_hours=_number(environment, "KESTREL_REGISTRY_UNDO_HOURS", default.registry_undo_hours),
        registry_collect_hours=_number(environment, "KESTREL_REGISTRY_COLLECT_HOURS", default.registry_collect_hours),
        subnet=environment.get("KESTREL_SUBNET", ""),
        node=environment.get("KESTREL_NODE", ""),
        kubeconfig=Path(environment.get("KESTREL_KUBECONFIG", home / ".kube" / "config")),
        etc=Path(environment.get("KESTREL_ETC", default.etc)),
        insecure_registries=tuple(filter(None, registries.split(","))),
    )


def _port(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, str(default))
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise InvalidArgument(f"invalid {variable} {text!r}", hint="a port is a number from 0 to 65535")
    return int(text)


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise InvalidArgument(f"invalid {variable} {text!r}", hint="write a number of hours, 0 for never")
    return int(text)


def _path(environment: Mapping[str, str], variable: str) -> "Path | None":
    text = environment.get(variable, "")
    return Path(text) if text else None


def _switch(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "0")
    if text not in ("", "0", "1"):
        raise InvalidArgument(f"invalid {variable} {text!r}", hint="write 1 for yes, 0 for no")
    return text == "1"
