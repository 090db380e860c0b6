"""One pod's volumes while it lives here: made ready once, then kept up to date.

`mount` reads what the volumes are made of, and writes and checks everything in a thread. `refresh` writes projected
volumes again when a ConfigMap or Secret changed or a token has used up four fifths of its life; it never takes a
volume away, so a source that has vanished meanwhile leaves the last files in place.
"""

import asyncio
from collections.abc import Mapping

from kestrel.base.errors import FailedPrecondition, KestrelError
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import mounts, projected_files, projection, sources
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.downward import Facts
from kestrel.kube.kubelet.env import Sources
from kestrel.kube.kubelet.parts import Parts
from kestrel.kube.kubelet.projection import File, TokenNeed
from kestrel.kube.kubelet.security import fs_group

TOKEN_LIFE = 0.8
"""Share of a token's life after which it is renewed, as upstream's kubelet does."""


class MountError(Exception):
    """A volume cannot be made ready now."""

    def __init__(self, volume: str, cause: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {cause}')


class PodVolumes:
    """The volumes of one pod on this host."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.ready: dict[str, mounts.Ready] = {}
        self.renew_at: float | None = None
        """When the earliest token wants to be renewed."""

    def sources(self, pod: JSONObject) -> set[tuple[str, str]]:
        """Return (resource, name) of what the volumes are made of."""
        found: set[tuple[str, str]] = set()
        for volume in pod["spec"].get("volumes") or ():
            found |= projection.needed(volume)
        return found

    async def mount(self, pod: JSONObject, facts: Facts) -> None:
        """Make every volume ready; raises MountError for the first that cannot be."""
        volumes = list(pod["spec"].get("volumes") or ())
        claims = {name: await self._claim(pod, name) for name in sources.claim_names(pod)}
        rendered = await self._render(pod, volumes, facts)
        group = fs_group(pod)
        for volume in volumes:
            try:
                ready = await asyncio.to_thread(self._prepare, pod, volume, rendered.get(volume["name"]), claims, group)
            except (KestrelError, OSError) as error:
                raise MountError(volume["name"], _reason(error)) from error
            self.ready[volume["name"]] = ready

    async def refresh(self, pod: JSONObject, facts: Facts) -> None:
        """Write projected volumes again where what they are made of has changed."""
        volumes = [volume for volume in pod["spec"].get("volumes") or () if volume["name"] in self.ready]
        rendered = await self._render(pod, volumes, facts)
        for volume in volumes:
            if volume["name"] in rendered:
                await asyncio.to_thread(self._write, pod, volume["name"], rendered[volume["name"]], fs_group(pod))

    async def _claim(self, pod: JSONObject, name: str) -> mounts.Claim:
        try:
            return await sources.claim(self._parts.client, pod, name)
        except KestrelError as error:
            volumes = pod["spec"]["volumes"]
            named = [v["name"] for v in volumes if (v.get("persistentVolumeClaim") or {}).get("claimName") == name]
            raise MountError(named[0], _reason(error)) from error

    async def _render(self, pod: JSONObject, volumes: list[JSONObject], facts: Facts) -> dict[str, dict[str, File]]:
        projected = [volume for volume in volumes if any(kind in volume for kind in projection.KINDS)]
        if not projected:
            return {}
        wanted = set().union(*(projection.needed(volume) for volume in projected))
        read, issued = await asyncio.gather(
            sources.read(self._parts.client, pods.namespace(pod), wanted), self._tokens(pod, projected)
        )
        return {volume["name"]: _files(pod, volume, read, facts, issued) for volume in projected}

    async def _tokens(self, pod: JSONObject, volumes: list[JSONObject]) -> dict[TokenNeed, str]:
        needs = set().union(*(projection.tokens(volume) for volume in volumes))
        if not needs:
            return {}
        try:
            issued = await sources.issue(self._parts.client, pod, needs)
        except KestrelError as error:
            named = next(volume["name"] for volume in volumes if projection.tokens(volume))
            raise MountError(named, f"failed to fetch token: {_reason(error)}") from error
        now = self._parts.now()
        ends = [pods.moment(status["expirationTimestamp"]) or now + 600 for status in issued.values()]
        self.renew_at = now + (min(ends) - now) * TOKEN_LIFE
        return {need: str(status["token"]) for need, status in issued.items()}

    def _prepare(
        self,
        pod: JSONObject,
        volume: JSONObject,
        files: dict[str, File] | None,
        claims: Mapping[str, mounts.Claim],
        group: int | None,
    ) -> mounts.Ready:
        ready = mounts.prepare(pod, volume, self._parts.settings.paths, claims=claims, group=group)
        if files is not None:
            self._write(pod, volume["name"], files, group)
        return ready

    def _write(self, pod: JSONObject, name: str, files: dict[str, File], group: int | None) -> None:
        root = self._parts.settings.paths.projected(pods.uid(pod), name)
        projected_files.write(root, files, now=self._parts.clock.now(), group=group)


def _files(
    pod: JSONObject, volume: JSONObject, read: Sources, facts: Facts, issued: Mapping[TokenNeed, str]
) -> dict[str, File]:
    try:
        return projection.render(pod, volume, read, facts, issued)
    except KestrelError as error:
        raise MountError(volume["name"], _reason(error)) from error


def _reason(error: KestrelError | OSError) -> str:
    hint = error.hint if isinstance(error, FailedPrecondition) else None
    return f"{error} ({hint})" if hint else str(error)
