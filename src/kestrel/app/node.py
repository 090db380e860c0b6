"""The node's parts, built bottom to top: store, network, engine, builder, registry. Nothing here knows Kubernetes."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from kestrel import distribution, network, registry
from kestrel.app.builds import Bootstrap, EngineExecutor
from kestrel.app.local import LinkingPusher
from kestrel.app.registry import Administration
from kestrel.app.settings import Settings
from kestrel.app.upkeep import Upkeep
from kestrel.base.db import Database
from kestrel.build import Builder
from kestrel.content import Root, Store
from kestrel.engine import Engine
from kestrel.engine import Settings as EngineSettings
from kestrel.engine.shims import Zygote
from kestrel.images import ImageService
from kestrel.network import NetworkService
from kestrel.oci.digest import Digest
from kestrel.registry import Registry
from kestrel.snapshots import Erofs, Overlay, Snapshotter, missing
from kestrel.volumes import VolumeService


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the rest of the platform works with."""

    database: Database
    content: Store
    snapshots: Snapshotter
    images: ImageService
    logins: distribution.Logins
    network: NetworkService
    volumes: VolumeService
    engine: Engine
    builder: Builder
    bootstrap: Bootstrap
    registry: Registry
    administration: Administration
    lacks: tuple[str, ...]


async def open_node(settings: Settings, zygote: Zygote, stack: AsyncExitStack) -> Node:
    """Build and start everything; `stack` takes it down again in reverse order."""
    root = settings.root
    database = Database(root / "kestrel.db")
    stack.callback(database.close)
    content = Store(root, database)
    snapshots, lacks = _snapshots(root, database, stack)
    docker_config = Path("~/.docker/config.json").expanduser()
    client = await stack.enter_async_context(
        distribution.Client.open(
            distribution.Settings(
                insecure_registries=settings.insecure_registries,
                etc=settings.etc,
                docker_config=docker_config,
            )
        )
    )
    served = Registry(
        content,
        database,
        registry.Settings(
            sparse=settings.registry_sparse,
            htpasswd=settings.registry_htpasswd,
            url=settings.registry_url,
            undo_seconds=settings.registry_undo_hours * 3600.0,
        ),
        client,
    )
    stack.push_async_callback(served.close)

    # What images must be kept for is known by parts that are made after the image service, and of it.
    def in_use(image: Digest) -> list[str]:
        return [c.config.name for c in engine.containers() if c.image_id == image]

    def cached_blobs() -> list[Digest]:
        return builder.roots()

    def cached_layers() -> list[Digest]:
        return builder.layer_roots()

    def came_in() -> None:
        upkeep.changed()

    names = ("localhost", "127.0.0.1", settings.registry_address, *settings.registry_names)
    own = frozenset(f"{host}:{settings.registry_port}" for host in names)
    roots: dict[str, Root] = {"registry": served.repositories, "build cache": cached_blobs}
    images = ImageService(
        content,
        snapshots,
        database,
        client,
        LinkingPusher(client, served.repositories, own),
        in_use=in_use,
        roots=roots,
        layer_roots={"build cache": cached_layers},
        changed=came_in,
        is_own=own.__contains__,
    )

    async def tidy() -> None:
        await asyncio.to_thread(served.tidy)

    administration = Administration(
        served, content, {"images": images.roots, **roots}, collect_hours=settings.registry_collect_hours
    )
    chores = [tidy, administration.collect_if_due]
    upkeep = await stack.enter_async_context(Upkeep([images.settle], chores))
    net = NetworkService(database, network.Settings(name=settings.name, subnet=settings.subnet))
    stack.push_async_callback(net.close)
    volumes = VolumeService(root / "volumes", database)
    engine = Engine(
        EngineSettings(root=root, run=settings.run, cgroup=settings.name),
        database=database,
        images=images,
        snapshots=snapshots,
        network=net,
        volumes=volumes,
        zygote=zygote,
    )
    builder = Builder(
        images=images,
        content=content,
        snapshots=snapshots,
        executor=EngineExecutor(engine),
        database=database,
        root=root / "build",
        scratch=settings.run / "build",
    )
    await stack.enter_async_context(engine)
    return Node(
        database=database,
        content=content,
        snapshots=snapshots,
        images=images,
        logins=distribution.Logins(client, docker_config),
        network=net,
        volumes=volumes,
        engine=engine,
        builder=builder,
        bootstrap=Bootstrap(images, root / "bootstrap"),
        registry=served,
        administration=administration,
        lacks=lacks,
    )


def _snapshots(root: Path, database: Database, stack: AsyncExitStack) -> tuple[Snapshotter, tuple[str, ...]]:
    """Choose how layers are kept; returns that, and what the machine withholds from it."""
    reason = missing(root)
    if reason:
        cost = "layers are unpacked into directories: pulling takes several times as long"
        return Overlay(root, database), (f"layers cannot be mounted as they come ({reason}): {cost}",)
    snapshots = Erofs(root, database)
    stack.callback(snapshots.close)
    return snapshots, ()
