"""The node's agent: makes the pods bound to this node come true and says how they are."""

from kestrel.kube.kubelet.config import Settings as KubeletSettings
from kestrel.kube.kubelet.kubelet import Kubelet

__all__ = ["Kubelet", "KubeletSettings"]
