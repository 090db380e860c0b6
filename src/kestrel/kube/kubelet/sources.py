"""Reads from the API what pods refer to: ConfigMaps, Secrets, tokens, claims and pull secrets."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from kestrel.base.errors import FailedPrecondition, InvalidArgument, Unimplemented
from kestrel.distribution import Credentials, pull_secrets
from kestrel.kube.client import Client, JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.env import SECRET, Sources
from kestrel.kube.kubelet.mounts import Claim
from kestrel.kube.kubelet.projection import TokenNeed


async def read(client: Client, namespace: str, wanted: Iterable[tuple[str, str]]) -> Sources:
    """Return the objects of those (resource, name) that exist."""
    pairs = sorted(set(wanted))
    found = await asyncio.gather(*(client.find(resource, name, namespace) for resource, name in pairs))
    return Sources({pair: body for pair, body in zip(pairs, found, strict=True) if body is not None})


async def issue(client: Client, pod: JSONObject, needs: Iterable[TokenNeed]) -> dict[TokenNeed, JSONObject]:
    """Return a TokenRequest's status for each need, bound to the pod."""
    account = str(pod["spec"].get("serviceAccountName") or "default")
    wanted = sorted(set(needs))
    answers = await asyncio.gather(
        *(
            client.create_token(
                pods.namespace(pod),
                account,
                audiences=(need.audience,) if need.audience else (),
                expiration_seconds=need.seconds,
                pod=pod,
            )
            for need in wanted
        )
    )
    return {need: answer["status"] for need, answer in zip(wanted, answers, strict=True)}


def claim_names(pod: JSONObject) -> list[str]:
    """Return the names of the claims a pod uses."""
    volumes = pod["spec"].get("volumes") or ()
    return [str(v["persistentVolumeClaim"]["claimName"]) for v in volumes if "persistentVolumeClaim" in v]


async def claim(client: Client, pod: JSONObject, name: str) -> Claim:
    """Return where the data of a bound claim is; raises FailedPrecondition while it is not bound."""
    body = await client.find("persistentvolumeclaims", name, pods.namespace(pod))
    if body is None:
        raise FailedPrecondition(f'persistentvolumeclaim "{name}" not found', hint="create the claim")
    volume_name = body["spec"].get("volumeName")
    if (body.get("status") or {}).get("phase") != "Bound" or not volume_name:
        raise FailedPrecondition(f'persistentvolumeclaim "{name}" is not bound to a volume yet')
    if body["metadata"].get("deletionTimestamp"):
        raise FailedPrecondition(f'persistentvolumeclaim "{name}" is being deleted')
    volume = await client.find("persistentvolumes", str(volume_name))
    if volume is None:
        raise FailedPrecondition(f'persistentvolume "{volume_name}" of claim "{name}" not found')
    spec = volume["spec"]
    source = spec.get("hostPath") or spec.get("local")
    if not source:
        kinds = ", ".join(sorted(spec.keys() - {"accessModes", "capacity", "claimRef"}))
        raise Unimplemented(f'persistentvolume "{volume_name}" is of a kind that is not supported: {kinds}')
    only_read = (spec.get("accessModes") or []) == ["ReadOnlyMany"]
    return Claim(path=Path(source["path"]), read_only=only_read)


async def pull_credentials(client: Client, pod: JSONObject) -> Credentials | None:
    """Return who the pod's pull secrets say we are, None when there are none.

    A secret that is missing or unreadable is passed over, as upstream does: the pull then says what is wrong.
    """
    names = [str(reference.get("name", "")) for reference in pod["spec"].get("imagePullSecrets") or ()]
    if not names:
        return None
    sources = await read(client, pods.namespace(pod), ((SECRET, name) for name in names))
    read_ones = [sources.find(SECRET, name) or {} for name in names]
    kinds = ("dockerconfigjson", "dockercfg")
    found = [(f"kubernetes.io/{kind}", data[f".{kind}"]) for data in read_ones for kind in kinds if f".{kind}" in data]
    readable = [secret for secret in found if _is_readable(secret)]
    return pull_secrets(readable) if readable else None


def _is_readable(secret: tuple[str, bytes]) -> bool:
    try:
        pull_secrets([secret])
    except InvalidArgument:
        return False
    return True
