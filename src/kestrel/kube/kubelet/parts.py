"""What the modules of the kubelet work with, handed from one to the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from kestrel.base.clock import Clock
from kestrel.kube.client import Client
from kestrel.kube.client.recorder import Recorder
from kestrel.kube.kubelet.config import Settings
from kestrel.kube.kubelet.runtime import PodRuntime


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The cluster, this host, and how to speak of both. `allocatable` is what pods may have of the node."""

    client: Client
    runtime: PodRuntime
    recorder: Recorder
    clock: Clock
    settings: Settings
    allocatable: Mapping[str, Fraction]

    def now(self) -> float:
        """Return the wall clock in seconds since the epoch."""
        return self.clock.now().timestamp()
