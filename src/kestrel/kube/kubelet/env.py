"""A container's environment: literal values, references and the downward API, in Kubernetes' order; pure.

Order: variables of services, then `envFrom` in its order, then `env` in its order; a later one replaces an earlier.
`$(NAME)` in a value stands for a variable defined before it, `$$` for a dollar sign, and what is not defined stays as
it is written (kubernetes.io "Define Dependent Environment Variables").
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kestrel.base.errors import FailedPrecondition, nearest
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.kube.kubelet.downward import Facts, pod_field, resource_field

_REFERENCE = re.compile(r"\$(\$|\([^()$]*\))")
_NAME = re.compile(r"[^=\x00-\x20\x7f-\xff]+")

CONFIG_MAP, SECRET = "configmaps", "secrets"
_WORDS = {CONFIG_MAP: ("configmap", "ConfigMap"), SECRET: ("secret", "Secret")}


@dataclass(frozen=True, slots=True)
class Sources:
    """The ConfigMaps and Secrets that were read for a pod, by (resource, name); what is missing does not exist."""

    objects: Mapping[tuple[str, str], JSONObject] = field(default_factory=dict)

    def find(self, resource: str, name: str) -> dict[str, bytes] | None:
        """Return the data of one object as bytes by key, None when there is no such object."""
        found = self.objects.get((resource, name))
        return None if found is None else payload(found)

    def need(self, resource: str, name: str, *, optional: bool) -> dict[str, bytes] | None:
        """Return the data of one object; raises FailedPrecondition unless it is `optional`."""
        found = self.find(resource, name)
        if found is None and not optional:
            raise FailedPrecondition(
                f'{_WORDS[resource][0]} "{name}" not found',
                hint=f"create the {_WORDS[resource][1]}, or mark it optional",
            )
        return found


def payload(body: JSONObject) -> dict[str, bytes]:
    """Return the keys of a ConfigMap or Secret with their bytes."""
    if body.get("kind") == "Secret":
        return {key: _decoded(value) for key, value in (body.get("data") or {}).items()}
    plain = {key: str(value).encode() for key, value in (body.get("data") or {}).items()}
    return plain | {key: _decoded(value) for key, value in (body.get("binaryData") or {}).items()}


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value), validate=False)
    except (binascii.Error, ValueError):
        return b""


def needed(container: JSONObject) -> set[tuple[str, str]]:
    """Return (resource, name) of the ConfigMaps and Secrets that the container's environment speaks of."""
    found = set()
    for source in container.get("envFrom") or ():
        for key, resource in (("configMapRef", CONFIG_MAP), ("secretRef", SECRET)):
            if key in source:
                found.add((resource, str(source[key].get("name", ""))))
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        for key, resource in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
            if key in value_from:
                found.add((resource, str(value_from[key].get("name", ""))))
    return found


def environment(
    pod: JSONObject,
    container: JSONObject,
    sources: Sources,
    facts: Facts,
    *,
    services: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables of one container; raises FailedPrecondition naming the key that is missing."""
    result = dict(services or {})
    for source in container.get("envFrom") or ():
        result |= _env_from(source, sources)
    for variable in container.get("env") or ():
        value = _value(pod, container, variable, sources, facts, result)
        if value is not None:
            result[variable["name"]] = value
    return result


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by known variables and `$$` by a dollar sign."""

    def one(match: re.Match[str]) -> str:
        word = match[1]
        return "$" if word == "$" else known.get(word[1:-1], match[0])

    return _REFERENCE.sub(one, text)


def expand_all(texts: Sequence[str], known: Mapping[str, str]) -> tuple[str, ...]:
    """Expand each of several words."""
    return tuple(expand(str(text), known) for text in texts)


def _env_from(source: JSONObject, sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    result = {}
    for key, resource in (("configMapRef", CONFIG_MAP), ("secretRef", SECRET)):
        if key in source:
            data = sources.need(resource, source[key].get("name", ""), optional=bool(source[key].get("optional")))
            for name, value in (data or {}).items():
                # A key that cannot be a variable's name is left out, as upstream does.
                if _NAME.fullmatch(prefix + name):
                    result[prefix + name] = value.decode(errors="surrogateescape")
    return result


def _value(
    pod: JSONObject,
    container: JSONObject,
    variable: JSONObject,
    sources: Sources,
    facts: Facts,
    known: Mapping[str, str],
) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return expand(str(variable.get("value") or ""), known)
    if "fieldRef" in source:
        return pod_field(pod, str(source["fieldRef"]["fieldPath"]), facts)
    if "resourceFieldRef" in source:
        return resource_field(pod, container, source["resourceFieldRef"], facts)
    if "configMapKeyRef" in source:
        return _key(pod, CONFIG_MAP, source["configMapKeyRef"], sources)
    if "secretKeyRef" in source:
        return _key(pod, SECRET, source["secretKeyRef"], sources)
    raise FailedPrecondition(f"env {variable['name']} has a valueFrom of an unknown kind")


def _key(pod: JSONObject, resource: str, reference: JSONObject, sources: Sources) -> str | None:
    name, key, optional = str(reference.get("name", "")), str(reference["key"]), bool(reference.get("optional"))
    data = sources.need(resource, name, optional=optional)
    if data is None:
        return None
    if key in data:
        return data[key].decode(errors="surrogateescape")
    if optional:
        return None
    close = nearest(key, data)
    raise FailedPrecondition(
        f"couldn't find key {key} in {_WORDS[resource][1]} {pods.namespace(pod)}/{name}",
        hint=f"did you mean {close}?" if close else None,
    )
