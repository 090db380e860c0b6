"""What configMap, secret, downwardAPI and projected volumes contain: path, bytes and mode of each file; pure.

`render` gives the files of one volume from objects that were read beforehand; `needed` says which to read. Tokens of
service accounts are passed in too, because they come from the API. Writing the files is `mounts`' work.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from kestrel.base.errors import FailedPrecondition, InvalidArgument, nearest
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.downward import Facts, pod_field, resource_field
from kestrel.kube.kubelet.env import CONFIG_MAP, SECRET, Sources

DEFAULT_MODE = 0o644
TOKEN_MODE = 0o600
KINDS = ("configMap", "secret", "downwardAPI", "projected")


@dataclass(frozen=True, slots=True)
class File:
    """One projected file."""

    data: bytes = field(repr=False)
    mode: int = DEFAULT_MODE


@dataclass(frozen=True, slots=True, order=True)
class TokenNeed:
    """A service account token that a volume wants."""

    audience: str
    seconds: int


def needed(volume: JSONObject) -> set[tuple[str, str]]:
    """Return (resource, name) of the ConfigMaps and Secrets that a volume is made of."""
    found = set()
    for source in _sources(volume):
        if "configMap" in source:
            found.add((CONFIG_MAP, str(source["configMap"].get("name", ""))))
        if "secret" in source:
            found.add((SECRET, str(source["secret"].get("secretName") or source["secret"].get("name", ""))))
    return found


def tokens(volume: JSONObject) -> set[TokenNeed]:
    """Return the service account tokens that a volume wants."""
    return {_token(source["serviceAccountToken"]) for source in _sources(volume) if "serviceAccountToken" in source}


def render(
    pod: JSONObject, volume: JSONObject, sources: Sources, facts: Facts, issued: Mapping[TokenNeed, str]
) -> dict[str, File]:
    """Return the files of a volume by relative path; raises FailedPrecondition naming what is missing."""
    files: dict[str, File] = {}
    default = _default_mode(volume)
    for source in _sources(volume):
        files |= _source_files(pod, source, default, sources, facts, issued)
    return files


def _sources(volume: JSONObject) -> list[JSONObject]:
    if "projected" in volume:
        return list(volume["projected"].get("sources") or ())
    return [{kind: volume[kind]} for kind in KINDS if kind in volume]


def _default_mode(volume: JSONObject) -> int:
    for kind in KINDS:
        if kind in volume:
            mode = volume[kind].get("defaultMode")
            return DEFAULT_MODE if mode is None else int(mode)
    return DEFAULT_MODE


def _source_files(
    pod: JSONObject,
    source: JSONObject,
    default: int,
    sources: Sources,
    facts: Facts,
    issued: Mapping[TokenNeed, str],
) -> dict[str, File]:
    if "configMap" in source:
        return _object_files(pod, CONFIG_MAP, source["configMap"], default, sources)
    if "secret" in source:
        return _object_files(pod, SECRET, source["secret"], default, sources)
    if "downwardAPI" in source:
        return {
            _path(item["path"]): File(_downward(pod, item, facts), _mode(item, default))
            for item in source["downwardAPI"].get("items") or ()
        }
    if "serviceAccountToken" in source:
        token = source["serviceAccountToken"]
        mode = default if default != DEFAULT_MODE else TOKEN_MODE
        return {_path(token["path"]): File(issued[_token(token)].encode(), mode)}
    raise InvalidArgument(f"unsupported projected source: {', '.join(source)}")


def _object_files(
    pod: JSONObject, resource: str, reference: JSONObject, default: int, sources: Sources
) -> dict[str, File]:
    name = str(reference.get("secretName") or reference.get("name", ""))
    optional = bool(reference.get("optional"))
    data = sources.need(resource, name, optional=optional)
    if data is None:
        return {}
    items = reference.get("items")
    if not items:
        return {_path(key): File(value, default) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            files[_path(item["path"])] = File(data[item["key"]], _mode(item, default))
        elif not optional:
            close = nearest(item["key"], data)
            word = "ConfigMap" if resource == CONFIG_MAP else "Secret"
            raise FailedPrecondition(
                f"references non-existent key {item['key']} in {word} {pods.namespace(pod)}/{name}",
                hint=f"did you mean {close}?" if close else None,
            )
    return files


def _downward(pod: JSONObject, item: JSONObject, facts: Facts) -> bytes:
    if "fieldRef" in item:
        return pod_field(pod, str(item["fieldRef"]["fieldPath"]), facts).encode()
    reference = item["resourceFieldRef"]
    return resource_field(pod, {}, reference, facts).encode()


def _token(source: JSONObject) -> TokenNeed:
    return TokenNeed(str(source.get("audience") or ""), int(source.get("expirationSeconds") or 3600))


def _mode(item: JSONObject, default: int) -> int:
    mode = item.get("mode")
    return default if mode is None else int(mode)


def _path(path: str) -> str:
    """Return a relative path that stays inside the volume; validation has seen to it, the files must not rely on it."""
    clean = posixpath.normpath(str(path))
    if clean.startswith(("/", "..")) or clean == ".":
        raise InvalidArgument(f"invalid path in volume: {path!r}", hint="use a relative path without ..")
    return clean
