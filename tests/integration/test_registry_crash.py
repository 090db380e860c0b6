"""kill -9 of the registry in the middle of pushes, pulls and collections, again and again.

What was acknowledged is whole, what was not does no harm, and nothing half-written was ever served.
"""

import asyncio
import contextlib
import io
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from kestrel.base.db import Database
from kestrel.base.errors import DataLoss, KestrelError, NotFound
from kestrel.content import Store, sweep
from kestrel.distribution import Client, Settings
from kestrel.oci import media_types
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.digest import Digest
from kestrel.oci.manifest import Manifest
from kestrel.oci.reference import Reference
from kestrel.registry import Repositories, SqliteMetadata

SERVE = """
import asyncio, os, sys, threading
from pathlib import Path
from kestrel.base.db import Database
from kestrel.content import Store, sweep
from kestrel.http.server import Server, Tcp
from kestrel.registry import Registry

async def main():
    root = Path(sys.argv[1])
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    registry = Registry(content, database)

    def collect():
        while True:
            for _ in range(20):
                content.put(os.urandom(100))  # garbage, so that there is something to take
            sweep(content, [registry.repositories])

    threading.Thread(target=collect, daemon=True).start()
    async with Server(registry.handle, [Tcp()]) as server:
        print(server.addresses[0], flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
ROUNDS = 4
PUSHERS = 3


@contextlib.asynccontextmanager
async def registry(root: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    source = str(Path(sys.modules["kestrel"].__file__ or "").parents[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVE,
        str(root),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        yield process, line.removeprefix("http://")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


def made(seed: int) -> tuple[bytes, bytes, bytes]:
    config = b'{"architecture":"amd64","os":"linux","seed":%d}' % seed
    layer = random.Random(seed).randbytes(300_000)
    manifest = Manifest.of(Descriptor.of(media_types.OCI_CONFIG, config), [Descriptor.of(media_types.OCI_LAYER, layer)])
    return config, layer, manifest.encode()


async def push_until_it_dies(host: str, seeds: "list[int]", acknowledged: dict[str, int]) -> None:
    """Push one image after the other, all to the same tag and each to its own; note each that was acknowledged."""
    async with Client.open(Settings(attempts=1)) as client:
        while True:
            seed = seeds.pop()
            config, layer, manifest = made(seed)
            ref = Reference.parse(f"{host}/crash/r{seed % 2}:t{seed}")
            try:
                for data in (config, layer):
                    await client.push_blob(ref, Descriptor.of("x/y", data), lambda data=data: io.BytesIO(data))
                await client.push_manifest(ref, media_types.OCI_MANIFEST, manifest)
                acknowledged[f"crash/r{seed % 2}:t{seed}"] = seed
                await client.push_manifest(ref.with_tag("latest"), media_types.OCI_MANIFEST, manifest)
            except KestrelError:
                return


async def pull_until_it_dies(host: str, acknowledged: dict[str, int]) -> None:
    """Read what was acknowledged, over and over: it is never anything but what was pushed."""
    async with Client.open(Settings(attempts=1)) as client:
        while True:
            await asyncio.sleep(0)
            if not acknowledged:
                await asyncio.sleep(0.01)
                continue
            name, seed = random.choice(list(acknowledged.items()))
            ref = Reference.parse(f"{host}/{name}")
            try:
                config, layer, manifest = made(seed)
                assert (await client.manifest(ref))[1] == manifest
                for data in (config, layer):
                    descriptor = Descriptor.of("x/y", data)
                    assert b"".join([piece async for piece in client.blob(ref, descriptor)]) == data
            except DataLoss:
                raise
            except NotFound as error:
                raise AssertionError(f"{name} was acknowledged and is not there") from error
            except KestrelError:
                return


async def test_no_acknowledged_push_is_lost_by_kill_9(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    seeds = list(range(100_000, 0, -1))
    for _ in range(ROUNDS):
        async with registry(tmp_path) as (process, host):
            pushing = [asyncio.create_task(push_until_it_dies(host, seeds, acknowledged)) for _ in range(PUSHERS)]
            pushing.append(asyncio.create_task(pull_until_it_dies(host, acknowledged)))
            await asyncio.sleep(random.uniform(0.15, 0.5))
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*pushing)
    assert acknowledged
    async with registry(tmp_path) as (_, host), Client.open() as client:
        for name, seed in acknowledged.items():
            config, layer, manifest = made(seed)
            ref = Reference.parse(f"{host}/{name}")
            assert (await client.manifest(ref))[1] == manifest
            for data in (config, layer):
                descriptor = Descriptor.of("x/y", data)
                assert b"".join([piece async for piece in client.blob(ref, descriptor)]) == data
    check_that_nothing_is_half(tmp_path)


def check_that_nothing_is_half(root: Path) -> None:
    """Every blob on disk is what its name says, every table row has its bytes, and a collection finds it all."""
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    repositories = Repositories(SqliteMetadata(database), content)
    for blob in content.walk():
        assert Digest.of(content.path(blob.digest).read_bytes()) == blob.digest
    for digest in repositories.named():
        assert content.has(digest)
    assert list((root / "ingest").iterdir()) == []
    sweep(content, [repositories])
    for name in repositories.catalog():
        for tag in repositories.tags(name):
            assert repositories.manifest(name, tag) is not None
    database.close()
