"""The Kubernetes REST API over an object store: one table of resources, no code per kind but strategies."""

from kestrel.kube.apiserver.admission import AdmissionSettings
from kestrel.kube.apiserver.backends import LogOptions, NodeBackend, Session, StreamOptions
from kestrel.kube.apiserver.call import ANONYMOUS, INTERNAL, MASTERS, Caller
from kestrel.kube.apiserver.server import ApiServer, Settings, kubeconfig
from kestrel.kube.apiserver.tokens import TokenSigner

__all__ = [
    "ApiServer",
    "Settings",
    "AdmissionSettings",
    "TokenSigner",
    "kubeconfig",
    "Caller",
    "ANONYMOUS",
    "INTERNAL",
    "MASTERS",
    "NodeBackend",
    "Session",
    "LogOptions",
    "StreamOptions",
]
