"""The cluster's parts over a node: object store, API server, controllers, scheduler, kubelet, and the door to them."""

import asyncio
import os
from base64 import b64encode
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kestrel import __version__
from kestrel.app import kubeconfig
from kestrel.app.doors import open_door
from kestrel.app.node import Node
from kestrel.app.settings import Settings
from kestrel.base import files
from kestrel.http.server import Server, Tcp
from kestrel.http.tls import Authority
from kestrel.kube.apiserver import ApiServer
from kestrel.kube.apiserver import kubeconfig as document
from kestrel.kube.apiserver.call import MASTERS
from kestrel.kube.apiserver.tokens import TokenSigner
from kestrel.kube.client import Client
from kestrel.kube.controllers.accounts import Accounts
from kestrel.kube.controllers.base import Controllers
from kestrel.kube.controllers.garbage import Garbage
from kestrel.kube.controllers.namespace import Namespaces
from kestrel.kube.controllers.storage import Storage
from kestrel.kube.kubelet.config import Settings as KubeletSettings
from kestrel.kube.kubelet.kubelet import Kubelet
from kestrel.kube.kubelet.node import Identity, look_at_machine
from kestrel.kube.kubelet.paths import Paths
from kestrel.kube.scheduler.scheduler import Scheduler
from kestrel.kube.store.sqlite import SqliteStore
from kestrel.pods import PodService

EVENT_SECONDS = 3600.0
VOLATILE = {"events": EVENT_SECONDS, "leases.coordination.k8s.io": 0.0}
"""Kept in memory only: what happened lately, and who is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the platform shows of the cluster."""

    url: str
    directory: Path
    config: Path
    parts: AsyncExitStack
    kubelet: Kubelet

    def access(self) -> dict[str, Any]:
        """Say how a client reaches the API."""
        return {
            "url": self.url,
            "kubeconfig": str(self.config),
            "authority": str(self.directory / "ca.crt"),
            "certificate": str(self.directory / "admin.crt"),
            "key": str(self.directory / "admin.key"),
        }

    async def stop(self) -> None:
        """Stop what would start pods again, before they are ended; take the mounts of their volumes off the host."""
        await self.parts.aclose()
        await self.kubelet.release_mounts()


def node_name(given: str, directory: Path, host: str = "") -> str:
    """Return what the node is called: as it is given, else as its host was when it first had a name.

    The name is kept in `directory`. Hosts are renamed, by their network even; under a new name this node would be
    another one, and its pods those of one that never comes back.
    """
    if given:
        return given
    kept = directory / "node"
    try:
        return kept.read_text().strip()
    except FileNotFoundError:
        name = (host or os.uname().nodename).lower()
        files.private_directory(directory)
        files.replace(kept, f"{name}\n".encode())
        return name


async def open_cluster(settings: Settings, node: Node, authority: Authority, stack: AsyncExitStack) -> Cluster:
    """Start store, API server and kubelet, then serve; `stack` takes it down again in reverse order."""
    directory = settings.root / "kubernetes"
    settings = replace(settings, node=await asyncio.to_thread(node_name, settings.node, directory))
    store = SqliteStore(node.database, volatile=VOLATILE)
    stack.push_async_callback(store.close)
    signer = await asyncio.to_thread(TokenSigner.load_or_create, directory / "service-accounts.json")
    ready: list[str] = []
    api = ApiServer(store, signer, ready=lambda: "" if ready else "the kubelet has not started")
    client = Client(api.transport())
    server = Server(
        api.application(),
        [
            Tcp(
                host=settings.address,
                port=settings.kubernetes_port,
                tls=authority.server_context(
                    ["localhost", "kubernetes", "kubernetes.default.svc", settings.node],
                    [settings.address],
                    ask_clients=True,
                ),
            )
        ],
    )
    await open_door(stack, server, "KESTREL_KUBERNETES_PORT")
    pods = PodService(node.engine, node.images)
    pods.load()
    machine = await asyncio.to_thread(look_at_machine, settings.root)
    kubelet = Kubelet(
        client,
        pods,
        settings=KubeletSettings(
            node=settings.node,
            address=_address(settings),
            paths=Paths(
                logs=settings.root / "pods", state=settings.root / "kubelet", volatile=settings.run / "kubelet"
            ),
            seccomp_root=settings.root / "seccomp",
            serves_domain=True,
            memory=machine.memory,
        ),
        identity=Identity(
            name=settings.node,
            address=_address(settings),
            versions=(f"v1.33.0+kestrel{__version__}", f"kestrel://{__version__}"),
        ),
        machine=machine,
        root=settings.root,
    )
    api.connect(kubelet.server)
    controllers = Controllers(
        (
            Namespaces(client),
            Accounts(client, authority.certificate.decode()),
            Storage(client, node.volumes),
            Garbage(client),
        )
    )
    scheduler = Scheduler(client)
    parts = await stack.enter_async_context(AsyncExitStack())
    for part in (controllers, scheduler, kubelet):
        await part.start()
        parts.push_async_callback(part.stop)
    ready.append("all")
    url = server.addresses[0]
    config = _write_access(settings, authority, directory, url)
    return Cluster(url=url, directory=directory, config=config, parts=parts, kubelet=kubelet)


def _write_access(settings: Settings, authority: Authority, directory: Path, url: str) -> Path:
    """Write the administrator's certificate and both kubeconfigs; return the one that plain kubectl reads."""
    admin = authority.client_certificate("kubernetes-admin", [MASTERS])
    files.replace(directory / "admin.crt", admin.certificate)
    files.replace(directory / "admin.key", admin.key)
    user = {
        "client-certificate-data": b64encode(admin.certificate).decode(),
        "client-key-data": b64encode(admin.key).decode(),
    }
    ours = document(url, authority.certificate, user, name=settings.name)
    kubeconfig.install(directory / "config", ours)
    kubeconfig.install(settings.kubeconfig, ours)
    return settings.kubeconfig


def _address(settings: Settings) -> str:
    return settings.address
