"""Floor 6: containers as users know them: what they mean, not how a door words them."""

from kestrel.engine.exec import ExecConfig
from kestrel.engine.model import (
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    DnsConfig,
    Mount,
    Resources,
    Sandbox,
    SandboxConfig,
    SandboxState,
    Security,
)
from kestrel.engine.parts import Settings
from kestrel.engine.service import Engine
from kestrel.engine.shims import ExecResult, Session
from kestrel.engine.step import Step, View
from kestrel.network import PortMapping

__all__ = [
    "Container",
    "ContainerConfig",
    "ContainerEvent",
    "ContainerState",
    "DnsConfig",
    "Engine",
    "ExecConfig",
    "ExecResult",
    "Mount",
    "PortMapping",
    "Resources",
    "Sandbox",
    "SandboxConfig",
    "SandboxState",
    "Security",
    "Session",
    "Settings",
    "Step",
    "View",
]
