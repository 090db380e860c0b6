"""Carries out one step: a writable root on the layers below, the operation, and the layer that is left.

Whatever happens, the writable root is gone when this returns: it has become a layer, or was discarded.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from kestrel.archive.apply import Form, apply
from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.base.ids import new_id, short
from kestrel.build import leftovers
from kestrel.build.archives import is_archive, plain
from kestrel.build.cache import Cache, Layer
from kestrel.build.copy import Writer
from kestrel.build.direct import compose
from kestrel.build.events import Emit, Lines
from kestrel.build.executor import HOSTNAME, Executor, Run
from kestrel.build.failed import FailedRun, OnFailure
from kestrel.build.gather import Gathering
from kestrel.build.graph import CopyFiles, Execute, Inline, MakeDirectory, Step
from kestrel.build.layers import Layers
from kestrel.build.leaks import Needle, Scan
from kestrel.build.mounts import Given, Mounts
from kestrel.build.ownership import find_owner, numeric_owner, parse_mode
from kestrel.build.shown import shown
from kestrel.build.threads import finished
from kestrel.build.tree import FILE, Reader, Source, Tree
from kestrel.dockerfile.errors import excerpt
from kestrel.linux import mounts as kernel_mounts
from kestrel.linux.rootfs import Rootfs
from kestrel.oci.digest import Digest

_TAIL = 10
_CODES = {
    126: "the command is there but cannot be executed",
    127: "the command is not in the image; check its name, PATH and what was installed before",
    137: "it was killed; most often memory ran out",
    139: "it crashed (segmentation fault)",
}


_BEYOND = ("Invalid argument", "Value too large for defined data type")
"""What chown(2) says of users that a user namespace does not have, and other calls of files that are theirs."""
_REFUSED = "Operation not permitted"


class RunFailed(FailedPrecondition):
    """A RUN ended with another exit code than 0; `exit_code` and the last lines of output are in `context`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What carrying out steps needs."""

    layers: Layers
    cache: Cache
    executor: Executor
    mounts: Mounts

    async def perform(
        self,
        step: Step,
        below: Sequence[Digest],
        gatherings: Mapping[int, Gathering],
        given: Given,
        emit: Emit,
        earlier: Layer | None = None,
        on_failure: OnFailure | None = None,
        scan: Scan | None = None,
    ) -> Layer:
        """Carry out a step on the layers `below` and return its layer. Raises KestrelError.

        `earlier` is what stood at its place before, and may save reading what did not change. `on_failure` is awaited
        while everything of a RUN that failed still stands; `scan` gets the keys of a layer that is written directly.
        """
        if isinstance(step.operation, CopyFiles):
            layer = await finished(self._copy_directly, step, below, gatherings, given.wanted, earlier, scan)
            if layer is not None:
                return layer
        key = self.layers.key()
        try:
            rootfs = await finished(self.layers.begin, key, below)
            users = range(0)
            if isinstance(step.operation, Execute):
                users = await self._run(step, step.operation, rootfs, gatherings, given, emit, on_failure)
            elif isinstance(step.operation, CopyFiles):
                await finished(copy_files, step.operation, rootfs, gatherings, step.epoch)
            else:
                await finished(_make_directory, step.operation, rootfs, step.epoch)
            return await finished(self.layers.commit, key, rootfs, step.epoch, given.wanted, users)
        finally:
            await asyncio.shield(asyncio.to_thread(self.layers.discard, key))

    def _copy_directly(
        self,
        step: Step,
        below: Sequence[Digest],
        gatherings: Mapping[int, Gathering],
        wanted: tuple[Needle, ...],
        earlier: Layer | None,
        scan: Scan | None,
    ) -> Layer | None:
        """COPY and ADD without a writable root; None when an archive has to be unpacked."""
        operation = step.operation
        assert isinstance(operation, CopyFiles)
        with ExitStack() as stack:
            root = -1
            if below:
                root = stack.enter_context(kernel_mounts.opened(kernel_mounts.open_rootfs(self.layers.view(below))))
            owner = numeric_owner(operation.chown) if operation.chown else None
            if operation.chown and owner is None:
                if root < 0:
                    return None
                owner = find_owner(operation.chown, Tree(root, name="the stage"))
            items = compose(
                operation,
                root,
                gatherings,
                step.epoch,
                owner=owner,
                mode=parse_mode(operation.chmod),
                is_archive=_opens_archive,
                stack=stack,
            )
            return None if items is None else self.layers.write(items, wanted, earlier, scan)

    async def _run(
        self,
        step: Step,
        operation: Execute,
        rootfs: Rootfs,
        gatherings: Mapping[int, Gathering],
        given: Given,
        emit: Emit,
        on_failure: OnFailure | None,
    ) -> range:
        """Run a command; returns the host's numbers of the users it had."""
        name = f"step-{short(new_id())}"
        lines = Lines(step.id, emit)
        show = partial(shown, epoch=step.epoch, layers=self.layers, cache=self.cache)
        prepared = self.mounts.prepared(name, operation, gatherings, given, step.epoch, show)
        async with prepared as (mounts, secret_env):
            await finished(leftovers.check, rootfs, mounts)
            places = await finished(leftovers.absent, rootfs, [mount.target for mount in mounts])
            run = Run(
                id=name,
                rootfs=rootfs,
                argv=operation.argv,
                env=(*operation.env, *secret_env.items()),
                cwd=operation.cwd,
                user=operation.user,
                network=operation.network,
                hosts=operation.hosts,
                hostname=operation.hostname or HOSTNAME,
                mounts=mounts,
                limits=given.limits,
                users=range(0) if given.host_users else None,
            )
            ran = await self.executor.run(run, lines.feed)
            lines.flush()
            if ran.code != 0:
                error = run_failed(step, ran.code, lines.tail, own_users=bool(ran.users))
                if on_failure is not None:
                    failed = FailedRun(
                        step=step.id,
                        title=step.title,
                        error=error,
                        run=replace(run, users=ran.users),
                        executor=self.executor,
                    )
                    await on_failure(failed)
                raise error
        await finished(leftovers.remove, rootfs, places, ran.users)
        return ran.users


def run_failed(step: Step, code: int, tail: Sequence[str], *, own_users: bool = False) -> RunFailed:
    """Make the error for a RUN: the exit code, the place, and the last lines it said."""
    hint = _CODES.get(code)
    if own_users and any(word in line for line in tail for word in _BEYOND):
        hint = "users above 65535 are none of a step's own: build with --userns host if it is they that are meant"
    elif own_users and any(_REFUSED in line for line in tail):
        hint = "a step has users of its own, who make no devices: build with --userns host if it needs the host's"
    shown = [line for line in tail if line.strip()][-_TAIL:]
    said = "".join(f"\n   | {_printable(line)}" for line in shown)
    message = f"`{step.title}` failed with exit code {code}\n{excerpt(step.place.source, step.place.range)}"
    return RunFailed(
        message + (f"\n  its last output:{said}" if said else ""),
        hint=hint,
        exit_code=code,
        file=step.place.source.name,
        line=step.place.range.first,
        output=list(shown),
    )


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def _printable(line: str) -> str:
    line = _ESCAPES.sub("", line).expandtabs(4)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[:500])


def _make_directory(operation: MakeDirectory, rootfs: Rootfs, epoch: int) -> None:
    with kernel_mounts.opened(kernel_mounts.open_rootfs(rootfs)) as root:
        writer = Writer(root, epoch=epoch, owner=_owner_of_directory(operation.user, root))
        with kernel_mounts.opened(writer.make_directory(operation.path)):
            pass


def _owner_of_directory(user: str, root: int) -> tuple[int, int] | None:
    """USER may name someone who is added later, or is only known where the image runs: root until then, as docker."""
    try:
        return find_owner(user, Tree(root, name="the stage")) if user else None
    except InvalidArgument:
        return None


def copy_files(operation: CopyFiles, rootfs: Rootfs, gatherings: Mapping[int, Gathering], epoch: int) -> None:
    """COPY and ADD into a writable root."""
    with kernel_mounts.opened(kernel_mounts.open_rootfs(rootfs)) as root:
        owner = None
        if operation.chown:
            lookup = Tree(root, name="the stage")
            owner = find_owner(operation.chown, lookup)
        writer = Writer(root, epoch=epoch, owner=owner, mode=parse_mode(operation.chmod))
        try:
            for number, selection in enumerate(operation.selections):
                if isinstance(selection.origin, Inline):
                    for name, text in selection.origin.files:
                        data = text.encode("utf-8", "surrogateescape")
                        writer.put(name, data, operation.destination, as_directory=operation.as_directory)
                    continue
                tree, sources = gatherings[number].sources()
                for source in sources:
                    if not (selection.unpack and _unpacked(writer, tree, source, operation.destination, owner)):
                        writer.place(tree, source, operation.destination, as_directory=operation.as_directory)
        finally:
            writer.close()


def _opens_archive(reader: Reader) -> bool:
    with open(reader.open(""), "rb") as file:
        return is_archive(file)


def _unpacked(writer: Writer, tree: Tree, source: Source, destination: str, owner: tuple[int, int] | None) -> bool:
    """Unpack a file if it is an archive; tells whether it was one, as docker does by looking at its bytes."""
    if source.entries[0].kind != FILE:
        return False
    with tree.opened(source) as reader, open(reader.open(""), "rb") as file:
        if not is_archive(file):
            return False
        directory = writer.make_directory(destination)
        with kernel_mounts.opened(directory):
            apply(plain(file), directory, form=Form.PLAIN, owner=owner)
    return True
