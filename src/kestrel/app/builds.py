"""The engine as the builder's executor, and Debian packages as images: what joins parts that do not know each other."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kestrel.build.executor import Output, Process, Ran, Run
from kestrel.engine import Engine, Mount, Resources, Step, View
from kestrel.images import ImageService
from kestrel.images import bootstrap as debian
from kestrel.oci.config import ImageConfig


class EngineExecutor:
    """Runs a build's commands in sandboxes of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run(self, run: Run, output: Output) -> Ran:
        """Run to the end."""
        return Ran(*await self._engine.run_step(_step(run), output))

    def enter(self, run: Run, *, tty: bool) -> AbstractAsyncContextManager[Process]:
        """Run with somebody at the other end."""
        return self._engine.enter_step(replace(_step(run), tty=tty, stdin=True))


def _step(run: Run) -> Step:
    return Step(
        id=run.id,
        rootfs=run.rootfs,
        argv=run.argv,
        env=run.env,
        cwd=run.cwd,
        user=run.user,
        users=run.users,
        network="bridge" if run.network == "default" else run.network,
        hostname=run.hostname,
        hosts=tuple((address, (name,)) for name, address in run.hosts),
        mounts=tuple(
            Mount(kind=m.kind, source=m.source, target=m.target, read_only=m.read_only, size=m.size)
            for m in run.mounts
            if m.rootfs is None
        ),
        views=tuple(View(target=m.target, rootfs=m.rootfs, path=m.source) for m in run.mounts if m.rootfs is not None),
        resources=Resources(
            memory=run.limits.memory,
            cpu_millis=run.limits.cpu_millis,
            shm_size=run.limits.shm_size,
            ulimits=run.limits.ulimits,
        ),
    )


class Bootstrap:
    """Makes base images out of Debian packages and puts them into the store."""

    def __init__(self, images: ImageService, root: Path) -> None:
        self._images = images
        self._root = root

    async def __call__(
        self, name: str, variant: str, packages: tuple[str, ...], progress: Callable[[Any], None]
    ) -> dict[str, Any]:
        """Make one and return what it is: id, names, size, and how many packages are in it."""
        kind = debian.variant(variant)
        target = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._directory("work")))
        try:
            made = await asyncio.to_thread(
                debian.bootstrap,
                debian.Request(variant=kind, include=packages),
                cache=self._directory("packages"),
                target=target,
                report=progress,
            )
            config = ImageConfig.decode(json.dumps(made.config).encode())
            tars = [layer.path for layer in made.layers]
            image = await self._images.import_tars(tars, config, names=(name or kind.image,), progress=progress)
        finally:
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        count = sum(len(layer.packages) for layer in made.layers)
        return {"id": image.id, "names": list(image.names), "size": image.size, "packages": count}

    def _directory(self, name: str) -> Path:
        path = self._root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
