"""A whole Kubernetes API on a loopback port, and the real kubectl to talk to it.

`running` starts store, server and TLS in a directory and stops them again; nothing is faked but the node, which the
test brings itself (a `NodeBackend`) or does without. Namespaces `default` and `kube-system` with their service accounts
are there, as a started platform has them.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kestrel.base.db import Database
from kestrel.http.server import Server, Tcp
from kestrel.http.tls import Authority
from kestrel.kube.apiserver import MASTERS, ApiServer, Caller, NodeBackend, Settings, TokenSigner, kubeconfig
from kestrel.kube.client import Client
from kestrel.kube.store import SqliteStore

TOKEN = "root-token"


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running API server and what a test needs to use it."""

    directory: Path
    address: str
    authority: Authority
    store: SqliteStore
    api: ApiServer
    client: Client

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig whose user may do everything."""
        return self.directory / "kubeconfig"

    async def run(
        self,
        *arguments: str,
        program: str = "kubectl",
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Output:
        """Run kubectl (or another build of it) against this server and wait for its end."""
        process = await self.start(*arguments, program=program, environment=environment)
        data = stdin.encode() if stdin is not None else None
        try:
            out, err = await asyncio.wait_for(process.communicate(data), timeout)
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise
        return Output(process.returncode or 0, out.decode(), err.decode())

    async def start(
        self, *arguments: str, program: str = "kubectl", environment: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Start kubectl with pipes and return the process; the caller ends it."""
        pipe = asyncio.subprocess.PIPE
        cache = str(self.directory / "cache")
        return await asyncio.create_subprocess_exec(
            program,
            "--kubeconfig",
            str(self.kubeconfig),
            "--cache-dir",
            cache,
            *arguments,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env={**os.environ, "HOME": str(self.directory), **(environment or {})},
        )

    def write_kubeconfig(self, name: str, user: Mapping[str, object]) -> Path:
        """Write another kubeconfig with these credentials and return its path."""
        path = self.directory / name
        path.write_text(json.dumps(kubeconfig(self.address, self.authority.certificate, dict(user))))
        return path


@asynccontextmanager
async def running(
    directory: Path, *, backend: NodeBackend | None = None, settings: Settings | None = None
) -> AsyncIterator[Cluster]:
    """Serve the API from `directory` until the block ends."""
    database = Database(directory / "kestrel.db")
    store = SqliteStore(database, volatile={"events": 3600.0})
    authority = Authority.load_or_create(directory / "pki")
    admin = Caller(name="kubernetes-admin", groups=(MASTERS, "system:authenticated"))
    signer = TokenSigner.load_or_create(directory / "service-accounts.key")
    api = ApiServer(store, signer, settings=settings or Settings(tokens={TOKEN: admin}), backend=backend)
    client = Client(api.transport(), manager="kestrel")
    await _furnish(client)
    tls = authority.server_context(["localhost"], ["127.0.0.1"], ask_clients=True)
    try:
        async with Server(api.application(), [Tcp(tls=tls)]) as server:
            cluster = Cluster(directory, server.addresses[0], authority, store, api, client)
            cluster.write_kubeconfig("kubeconfig", {"token": TOKEN})
            yield cluster
    finally:
        await store.close()
        database.close()


async def _furnish(client: Client) -> None:
    for name in ("default", "kube-system"):
        if await client.find("namespaces", name) is None:
            await client.create("namespaces", {"metadata": {"name": name}})
        if await client.find("serviceaccounts", "default", name) is None:
            await client.create("serviceaccounts", {"metadata": {"name": "default", "namespace": name}})
