"""What a container of a Pod must be: names, ports, environment, mounts, probes, resources and rights.

Part of `validation`; the rules are those of the field descriptions in core/v1 Container, the sentences those of
kube-apiserver.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kestrel.kube.api import checks, names, quantity, status
from kestrel.kube.api.checks import Found
from kestrel.kube.api.resource import JSONObject

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("SCTP", "TCP", "UDP")
MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
PROC_MOUNTS = ("Default", "Unmasked")
SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
ENV_FIELDS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_SUBSCRIPT = re.compile(r"metadata\.(?:labels|annotations)\['([^']+)'\]\Z")
_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_FIELD_RESOURCES = re.compile(r"(?:limits|requests)\.(?:cpu|memory|ephemeral-storage|hugepages-.+)\Z")


def container(found: Found, path: str, entry: JSONObject, volumes: Mapping[str, JSONObject], kind: str) -> None:
    """Check one container; `kind` is the name of its list, `volumes` the pod's volumes by name."""
    checks.named(found, f"{path}.name", entry.get("name"), names.dns_label)
    image = entry.get("image") or ""
    if not image:
        found.append(status.required(f"{path}.image"))
    elif image != image.strip():
        found.append(status.invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    checks.one_of(found, f"{path}.imagePullPolicy", entry.get("imagePullPolicy"), PULL_POLICIES, needed=True)
    policy = entry.get("terminationMessagePolicy")
    checks.one_of(found, f"{path}.terminationMessagePolicy", policy, MESSAGE_POLICIES, needed=True)
    _ports(found, f"{path}.ports", entry.get("ports") or ())
    environment(found, path, entry)
    _mounts(found, path, entry, volumes)
    resources(found, f"{path}.resources", entry.get("resources") or {})
    security(found, f"{path}.securityContext", entry.get("securityContext"))
    _restart_policy(found, path, entry, kind)
    if kind == "ephemeralContainers":
        _ephemeral(found, path, entry)
    elif kind == "containers" or entry.get("restartPolicy") == "Always":
        _probes_and_hooks(found, path, entry)
    else:
        _forbidden(found, path, entry, "lifecycle livenessProbe readinessProbe startupProbe", _NOT_FOR_INIT)


_NOT_FOR_INIT = "may not be set for init containers without restartPolicy=Always"


def _forbidden(found: Found, path: str, entry: JSONObject, fields: str, why: str) -> None:
    for field in fields.split():
        if entry.get(field):
            found.append(status.forbidden_field(f"{path}.{field}", why))


def _ephemeral(found: Found, path: str, entry: JSONObject) -> None:
    fields = "lifecycle livenessProbe readinessProbe startupProbe ports"
    _forbidden(found, path, entry, fields, "cannot be set for an Ephemeral Container")
    if any((entry.get("resources") or {}).values()):
        found.append(status.forbidden_field(f"{path}.resources", "cannot be set for an Ephemeral Container"))


def _restart_policy(found: Found, path: str, entry: JSONObject, kind: str) -> None:
    policy = entry.get("restartPolicy")
    if policy is None:
        return
    if kind != "initContainers":
        what = "containers" if kind == "ephemeralContainers" else "non-init containers"
        found.append(status.forbidden_field(f"{path}.restartPolicy", f"may not be set for {what}"))
    else:
        checks.one_of(found, f"{path}.restartPolicy", policy, ("Always",))


# -- ports ------------------------------------------------------------------------------------------------------------


def _ports(found: Found, path: str, ports: Any) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(ports):
        below = f"{path}[{index}]"
        name = entry.get("name")
        if name:
            checks.syntax(found, f"{below}.name", name, names.port_name)
            if name in seen:
                found.append(status.duplicate(f"{below}.name", name))
            seen.add(name)
        if not entry.get("containerPort"):
            found.append(status.required(f"{below}.containerPort"))
        else:
            checks.port(found, f"{below}.containerPort", entry["containerPort"])
        if entry.get("hostPort"):
            checks.port(found, f"{below}.hostPort", entry["hostPort"])
        checks.one_of(found, f"{below}.protocol", entry.get("protocol"), PROTOCOLS, needed=True)


# -- environment ------------------------------------------------------------------------------------------------------


def environment(found: Found, path: str, entry: JSONObject) -> None:
    """Check `env` and `envFrom`."""
    for index, variable in enumerate(entry.get("env") or ()):
        below = f"{path}.env[{index}]"
        name = variable.get("name")
        if not name:
            found.append(status.required(f"{below}.name"))
        else:
            checks.syntax(found, f"{below}.name", name, names.environment_name)
        source = variable.get("valueFrom")
        if source is not None:
            _value_from(found, f"{below}.valueFrom", source, variable.get("value"))
    for index, source in enumerate(entry.get("envFrom") or ()):
        _env_from(found, f"{path}.envFrom[{index}]", source)


def _value_from(found: Found, path: str, source: JSONObject, value: str | None) -> None:
    given = [kind for kind in _ENV_SOURCES if source.get(kind) is not None]
    if not given:
        words = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        found.append(status.invalid(path, "", f"must specify one of: {words}"))
    elif value:
        found.append(status.invalid(path, "", "may not be specified when `value` is not empty"))
    if len(given) > 1:
        found.append(status.invalid(path, "", checks.ONE_AT_A_TIME))
    if source.get("fieldRef") is not None:
        field_reference(found, f"{path}.fieldRef", source["fieldRef"], ENV_FIELDS, subscripts=True)
    if source.get("resourceFieldRef") is not None:
        resource_reference(found, f"{path}.resourceFieldRef", source["resourceFieldRef"], in_volume=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        reference = source.get(kind)
        if reference is not None:
            if not reference.get("name"):
                found.append(status.required(f"{path}.{kind}.name"))
            checks.named(found, f"{path}.{kind}.key", reference.get("key"), names.config_key)


def field_reference(
    found: Found, path: str, reference: JSONObject, fields: tuple[str, ...], *, subscripts: bool
) -> None:
    """Check a reference to a field of the pod itself."""
    field = reference.get("fieldPath") or ""
    if not field:
        found.append(status.required(f"{path}.fieldPath"))
    elif "[" in field:
        match = _SUBSCRIPT.match(field)
        if not match or not subscripts:
            sentence = f"error converting fieldPath: field label not supported: {field.partition('[')[0]}"
            found.append(status.invalid(f"{path}.fieldPath", field, sentence))
        else:
            checks.syntax(found, f"{path}.fieldPath", match.group(1).lower(), names.qualified_name)
    elif field not in fields:
        found.append(status.not_supported(f"{path}.fieldPath", field, fields))


def resource_reference(found: Found, path: str, reference: JSONObject, *, in_volume: bool) -> None:
    """Check a reference to a container's resource."""
    if in_volume and not reference.get("containerName"):
        found.append(status.required(f"{path}.containerName"))
    name = reference.get("resource") or ""
    if not name:
        found.append(status.required(f"{path}.resource"))
    elif not _FIELD_RESOURCES.match(name):
        words = [f"{kind}.{resource}" for kind in ("limits", "requests") for resource in _RESOURCES]
        found.append(status.not_supported(f"{path}.resource", name, words))


def _env_from(found: Found, path: str, source: JSONObject) -> None:
    if source.get("prefix"):
        checks.syntax(found, f"{path}.prefix", source["prefix"], names.environment_name)
    given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
    if not given:
        found.append(status.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
    elif len(given) > 1:
        found.append(status.invalid(path, "", checks.ONE_AT_A_TIME))
    for kind in given:
        checks.named(found, f"{path}.{kind}.name", source[kind].get("name"), names.dns_subdomain)


# -- mounts -----------------------------------------------------------------------------------------------------------


def _mounts(found: Found, path: str, entry: JSONObject, volumes: Mapping[str, JSONObject]) -> None:
    places: set[str] = set()
    for index, mount in enumerate(entry.get("volumeMounts") or ()):
        below = f"{path}.volumeMounts[{index}]"
        name = mount.get("name") or ""
        if not name:
            found.append(status.required(f"{below}.name"))
        if name not in volumes:
            found.append(status.not_found_field(f"{below}.name", name))
        place = mount.get("mountPath") or ""
        if not place:
            found.append(status.required(f"{below}.mountPath"))
        elif place in places:
            found.append(status.invalid(f"{below}.mountPath", place, "must be unique"))
        places.add(place)
        _mount_options(found, below, mount, entry)
    for index, device in enumerate(entry.get("volumeDevices") or ()):
        below = f"{path}.volumeDevices[{index}]"
        checks.named(found, f"{below}.name", device.get("name"), lambda _: ())
        if device.get("name") and device["name"] not in volumes:
            found.append(status.not_found_field(f"{below}.name", device["name"]))
        if not device.get("devicePath"):
            found.append(status.required(f"{below}.devicePath"))
        else:
            checks.backsteps(found, f"{below}.devicePath", device["devicePath"])


def _mount_options(found: Found, path: str, mount: JSONObject, entry: JSONObject) -> None:
    for field in ("subPath", "subPathExpr"):
        if mount.get(field):
            checks.relative_path(found, f"{path}.{field}", mount[field])
    if mount.get("subPath") and mount.get("subPathExpr"):
        sentence = "subPathExpr and subPath are mutually exclusive"
        found.append(status.invalid(f"{path}.subPathExpr", mount["subPathExpr"], sentence))
    propagation = mount.get("mountPropagation")
    checks.one_of(found, f"{path}.mountPropagation", propagation, PROPAGATIONS)
    if propagation == "Bidirectional" and not (entry.get("securityContext") or {}).get("privileged"):
        sentence = "Bidirectional mount propagation is available only to privileged containers"
        found.append(status.forbidden_field(f"{path}.mountPropagation", sentence))
    recursive = mount.get("recursiveReadOnly")
    checks.one_of(found, f"{path}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
    if recursive in ("Enabled", "IfPossible") and not mount.get("readOnly"):
        found.append(status.forbidden_field(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true"))


# -- probes and hooks -------------------------------------------------------------------------------------------------


def _probes_and_hooks(found: Found, path: str, entry: JSONObject) -> None:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = entry.get(name)
        if probe is not None:
            _probe(found, f"{path}.{name}", probe, readiness=name == "readinessProbe")
    for name in ("postStart", "preStop"):
        hook = (entry.get("lifecycle") or {}).get(name)
        if hook is not None:
            _handler(found, f"{path}.lifecycle.{name}", hook, _HOOKS)


def _probe(found: Found, path: str, probe: JSONObject, *, readiness: bool) -> None:
    _handler(found, path, probe, _HANDLERS)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        checks.at_least(found, f"{path}.{field}", probe.get(field), 0)
    grace = probe.get("terminationGracePeriodSeconds")
    if readiness:
        if grace is not None:
            sentence = "must not be set for readinessProbes"
            found.append(status.invalid(f"{path}.terminationGracePeriodSeconds", grace, sentence))
        return
    if grace is not None and grace <= 0:
        found.append(status.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if probe.get("successThreshold", 1) != 1:
        found.append(status.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))


def _handler(found: Found, path: str, handler: JSONObject, kinds: tuple[str, ...]) -> None:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        found.append(status.required(path, "must specify a handler type"))
    for extra in given[1:]:
        found.append(status.forbidden_field(f"{path}.{extra}", "may not specify more than 1 handler type"))
    if handler.get("exec") is not None and not handler["exec"].get("command"):
        found.append(status.required(f"{path}.exec.command"))
    if handler.get("httpGet") is not None:
        _http_get(found, f"{path}.httpGet", handler["httpGet"])
    for kind in ("tcpSocket", "grpc"):
        if handler.get(kind) is not None:
            checks.port_or_name(found, f"{path}.{kind}.port", handler[kind].get("port"))
    if "sleep" in given:
        checks.at_least(found, f"{path}.sleep.seconds", handler["sleep"].get("seconds"), 0)


def _http_get(found: Found, path: str, action: JSONObject) -> None:
    if not action.get("path"):
        found.append(status.required(f"{path}.path"))
    checks.port_or_name(found, f"{path}.port", action.get("port"))
    checks.one_of(found, f"{path}.scheme", action.get("scheme"), ("HTTP", "HTTPS"))
    for index, header in enumerate(action.get("httpHeaders") or ()):
        checks.syntax(found, f"{path}.httpHeaders[{index}].name", header.get("name") or "", names.header_name)


# -- resources and rights ---------------------------------------------------------------------------------------------


def resources(found: Found, path: str, wanted: JSONObject) -> None:
    """Check requests and limits of a container."""
    limits, requests = wanted.get("limits") or {}, wanted.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            below = f"{path}.{field}[{name}]"
            _resource_name(found, below, name)
            checks.not_negative(found, below, amount)
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            sentence = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(status.invalid(f"{path}.requests", amount, sentence))


def _resource_name(found: Found, path: str, name: str) -> None:
    checks.syntax(found, path, name, names.qualified_name)
    if "/" not in name and name not in _RESOURCES and not name.startswith("hugepages-"):
        found.append(status.invalid(path, name, "must be a standard resource for containers"))


def security(found: Found, path: str, context: JSONObject | None) -> None:
    """Check a container's security context."""
    if not context:
        return
    for field in ("runAsUser", "runAsGroup"):
        checks.between(found, f"{path}.{field}", context.get(field), 0, checks.MAX_ID)
    checks.one_of(found, f"{path}.procMount", context.get("procMount"), PROC_MOUNTS)
    seccomp(found, f"{path}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        added = (context.get("capabilities") or {}).get("add") or ()
        if context.get("privileged"):
            sentence = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            found.append(status.invalid(path, context, sentence))
        if "CAP_SYS_ADMIN" in added or "SYS_ADMIN" in added:
            sentence = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            found.append(status.invalid(path, context, sentence))


def seccomp(found: Found, path: str, profile: JSONObject | None) -> None:
    """Check a seccomp profile."""
    if profile is None:
        return
    kind, file = profile.get("type"), profile.get("localhostProfile")
    checks.one_of(found, f"{path}.type", kind, SECCOMP_TYPES, needed=True)
    if kind == "Localhost":
        if not file:
            found.append(status.required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
        else:
            checks.relative_path(found, f"{path}.localhostProfile", file)
    elif file:
        sentence = "can only be set when seccomp type is Localhost"
        found.append(status.invalid(f"{path}.localhostProfile", file, sentence))
