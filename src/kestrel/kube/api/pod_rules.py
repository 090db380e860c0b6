"""What a Pod must be when it is created, and what may change in it afterwards; part of `validation`.

A running pod is what it was created as: an update may change images, the deadline, further tolerations, a negative
grace, and lift scheduling gates (kubernetes.io "Pod update and replacement").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from kestrel.kube.api import checks, container_rules, fieldsets, names, status, volume_rules
from kestrel.kube.api.checks import Found
from kestrel.kube.api.defaults import CONTAINER_LISTS
from kestrel.kube.api.resource import JSONObject
from kestrel.kube.api.schemas import load

RESTART_POLICIES = ("Always", "Never", "OnFailure")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
PREEMPTION_POLICIES = ("Never", "PreemptLowerPriority")
GROUP_CHANGES = ("Always", "OnRootMismatch")
EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")

_MUTABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
    "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)


def created(found: Found, pod: JSONObject) -> None:
    """Check a new pod."""
    spec = pod.get("spec") or {}
    pod_spec(found, "spec", spec)
    if spec.get("ephemeralContainers"):
        found.append(status.forbidden_field("spec.ephemeralContainers", "cannot be set on create"))


def pod_spec(found: Found, path: str, spec: JSONObject) -> None:
    """Check a pod's spec, also that of a template."""
    by_name = volume_rules.volumes(found, f"{path}.volumes", spec.get("volumes") or ())
    if not spec.get("containers"):
        found.append(status.required(f"{path}.containers"))
    _containers(found, path, spec, by_name)
    _host_ports(found, path, spec)
    _scalars(found, path, spec)
    checks.labels(found, f"{path}.nodeSelector", spec.get("nodeSelector"))
    _security(found, f"{path}.securityContext", spec)
    _users(found, path, spec)
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if not reference.get("name"):
            found.append(status.required(f"{path}.imagePullSecrets[{index}].name"))
    tolerations(found, f"{path}.tolerations", spec.get("tolerations") or ())
    _dns(found, path, spec)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        _address(found, f"{path}.hostAliases[{index}].ip", alias.get("ip") or "")


def _containers(found: Found, path: str, spec: JSONObject, volumes: dict[str, JSONObject]) -> None:
    seen: set[str] = set()
    for kind in CONTAINER_LISTS:
        for index, entry in enumerate(spec.get(kind) or ()):
            below = f"{path}.{kind}[{index}]"
            container_rules.container(found, below, entry, volumes, kind)
            name = entry.get("name")
            if name and name in seen:
                found.append(status.duplicate(f"{below}.name", name))
            seen.add(name)


def _host_ports(found: Found, path: str, spec: JSONObject) -> None:
    """No two containers take the same port of the host; on the host's network the ports are the host's."""
    seen: set[str] = set()
    for index, entry in enumerate(spec.get("containers") or ()):
        for number, port in enumerate(entry.get("ports") or ()):
            host_port = port.get("hostPort")
            if not host_port:
                continue
            below = f"{path}.containers[{index}].ports[{number}]"
            if spec.get("hostNetwork") and host_port != port.get("containerPort"):
                found.append(
                    status.invalid(
                        f"{below}.containerPort",
                        port.get("containerPort"),
                        "must match `hostPort` when `hostNetwork` is true",
                    )
                )
            key = f"{port.get('protocol', 'TCP')}/{port.get('hostIP') or ''}/{host_port}"
            if key in seen:
                found.append(status.duplicate(f"{below}.hostPort", key))
            seen.add(key)


def _scalars(found: Found, path: str, spec: JSONObject) -> None:
    checks.one_of(found, f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES, needed=True)
    checks.one_of(found, f"{path}.dnsPolicy", spec.get("dnsPolicy"), DNS_POLICIES, needed=True)
    grace = spec.get("terminationGracePeriodSeconds")
    checks.at_least(found, f"{path}.terminationGracePeriodSeconds", grace, 0)
    checks.between(found, f"{path}.activeDeadlineSeconds", spec.get("activeDeadlineSeconds"), 1, checks.MAX_ID)
    for field, checker in (
        ("serviceAccountName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("priorityClassName", names.dns_subdomain),
        ("runtimeClassName", names.dns_subdomain),
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
        ("schedulerName", names.qualified_name),
    ):
        if spec.get(field):
            checks.syntax(found, f"{path}.{field}", spec[field], checker)
    checks.one_of(found, f"{path}.preemptionPolicy", spec.get("preemptionPolicy"), PREEMPTION_POLICIES)


def _security(found: Found, path: str, spec: JSONObject) -> None:
    context = spec.get("securityContext") or {}
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        checks.between(found, f"{path}.{field}", context.get(field), 0, checks.MAX_ID)
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        checks.between(found, f"{path}.supplementalGroups[{index}]", group, 0, checks.MAX_ID)
    policy = context.get("fsGroupChangePolicy")
    checks.one_of(found, f"{path}.fsGroupChangePolicy", policy, GROUP_CHANGES)
    container_rules.seccomp(found, f"{path}.seccompProfile", context.get("seccompProfile"))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        sentence = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(status.invalid(f"{path.rpartition('.')[0]}.shareProcessNamespace", True, sentence))


def _users(found: Found, path: str, spec: JSONObject) -> None:
    """A pod with users of its own has no namespace of the host's; only there /proc may be seen whole."""
    own = spec.get("hostUsers") is False
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if own and spec.get(field):
            found.append(status.forbidden_field(f"{path}.{field}", "when `hostUsers` is false"))
    for kind in CONTAINER_LISTS:
        for index, entry in enumerate(spec.get(kind) or ()):
            seen = (entry.get("securityContext") or {}).get("procMount")
            if seen == "Unmasked" and not own:
                below = f"{path}.{kind}[{index}].securityContext.procMount"
                found.append(status.invalid(below, seen, "`hostUsers` must be false to use `Unmasked`"))


def tolerations(found: Found, path: str, entries: Iterable[JSONObject]) -> None:
    """Check tolerations."""
    for index, entry in enumerate(entries):
        below = f"{path}[{index}]"
        key, operator, value = entry.get("key"), entry.get("operator") or "Equal", entry.get("value")
        if key:
            checks.syntax(found, f"{below}.key", key, names.qualified_name)
        elif operator != "Exists":
            sentence = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            found.append(status.invalid(f"{below}.operator", operator, sentence))
        if operator == "Exists" and value:
            sentence = "value must be empty when `operator` is 'Exists'"
            found.append(status.invalid(f"{below}.operator", entry, sentence))
        elif operator == "Equal" and value:
            checks.syntax(found, f"{below}.operator", value, names.label_value)
        checks.one_of(found, f"{below}.operator", operator, ("Equal", "Exists"))
        checks.one_of(found, f"{below}.effect", entry.get("effect"), EFFECTS)
        if entry.get("tolerationSeconds") is not None and entry.get("effect") != "NoExecute":
            sentence = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            found.append(status.invalid(f"{below}.effect", entry.get("effect") or "", sentence))


def _dns(found: Found, path: str, spec: JSONObject) -> None:
    config = spec.get("dnsConfig") or {}
    servers = config.get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        sentence = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        found.append(status.required(f"{path}.dnsConfig.nameservers", sentence))
    if len(servers) > 3:
        sentence = "must not have more than 3 nameservers"
        found.append(status.invalid(f"{path}.dnsConfig.nameservers", list(servers), sentence))
    for index, server in enumerate(servers):
        _address(found, f"{path}.dnsConfig.nameservers[{index}]", server)
    for index, domain in enumerate(config.get("searches") or ()):
        if domain != ".":
            checks.syntax(found, f"{path}.dnsConfig.searches[{index}]", domain.removesuffix("."), names.dns_subdomain)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            found.append(status.required(f"{path}.dnsConfig.options[{index}]", "must not be empty"))


def _address(found: Found, path: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        sentence = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        found.append(status.invalid(path, text, sentence))


# -- updates ----------------------------------------------------------------------------------------------------------


def updated(found: Found, pod: JSONObject, old: JSONObject, subresource: str) -> None:
    """Check what changed in a pod through its own path or one of its subresources."""
    new_spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    if subresource == "ephemeralcontainers":
        _more_ephemeral(found, new_spec, old_spec)
    elif subresource in ("", "resize"):
        _same_spec(found, new_spec, old_spec)


def _same_spec(found: Found, new: JSONObject, old: JSONObject) -> None:
    if new == old:
        return
    for kind in ("containers", "initContainers"):
        if len(new.get(kind) or ()) != len(old.get(kind) or ()):
            found.append(status.forbidden_field(f"spec.{kind}", "pod updates may not add or remove containers"))
            return
    _deadline(found, new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    _more_tolerations(found, new.get("tolerations") or [], old.get("tolerations") or [])
    frozen = _without_mutable(new, old)
    if frozen == old:
        for kind in ("containers", "initContainers"):
            for index, entry in enumerate(new.get(kind) or ()):
                if not entry.get("image"):
                    found.append(status.required(f"spec.{kind}[{index}].image"))
        return
    schema = load().definition("io.k8s.api.core.v1.PodSpec")
    changed, removed = fieldsets.compare(schema, old, frozen)
    paths = sorted(fieldsets.paths(fieldsets.union(changed, removed), "spec"))
    detail = f"pod updates may not change fields other than {_MUTABLE}\nchanged: {', '.join(paths)}"
    found.append(status.forbidden_field("spec", detail))


def _without_mutable(new: JSONObject, old: JSONObject) -> JSONObject:
    """The new spec with everything that may change put back to what it was."""
    found = deepcopy(new)
    for kind in ("containers", "initContainers"):
        for entry, before in zip(found.get(kind) or (), old.get(kind) or (), strict=True):
            _put_back(entry, before, "image")
    for field in ("activeDeadlineSeconds", "tolerations"):
        _put_back(found, old, field)
    if new.get("terminationGracePeriodSeconds") == 1 and (old.get("terminationGracePeriodSeconds") or 0) < 0:
        _put_back(found, old, "terminationGracePeriodSeconds")
    if all(gate in (old.get("schedulingGates") or ()) for gate in new.get("schedulingGates") or ()):
        _put_back(found, old, "schedulingGates")
    return found


def _put_back(new: JSONObject, old: JSONObject, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def _deadline(found: Found, new: int | None, old: int | None) -> None:
    if new is None:
        if old is not None:
            sentence = "must not update from a positive integer to nil value"
            found.append(status.invalid("spec.activeDeadlineSeconds", None, sentence))
        return
    checks.between(found, "spec.activeDeadlineSeconds", new, 1, checks.MAX_ID)
    if old is not None and new > old:
        sentence = "must be less than or equal to previous value"
        found.append(status.invalid("spec.activeDeadlineSeconds", new, sentence))


def _more_tolerations(found: Found, new: list[Any], old: list[Any]) -> None:
    def kept(entry: JSONObject) -> JSONObject:
        return {key: value for key, value in entry.items() if key != "tolerationSeconds"}

    if any(kept(entry) not in [kept(other) for other in new] for entry in old):
        sentence = "existing toleration can not be modified except its tolerationSeconds"
        found.append(status.forbidden_field("spec.tolerations", sentence))
    tolerations(found, "spec.tolerations", new)


def _more_ephemeral(found: Found, new: JSONObject, old: JSONObject) -> None:
    now = {entry.get("name"): entry for entry in new.get("ephemeralContainers") or ()}
    for entry in old.get("ephemeralContainers") or ():
        name = entry.get("name")
        if name not in now:
            sentence = f'existing ephemeral containers "{name}" may not be removed\n'
            found.append(status.forbidden_field("spec.ephemeralContainers", sentence))
        elif now[name] != entry:
            sentence = f'existing ephemeral containers "{name}" may not be changed\n'
            found.append(status.forbidden_field("spec.ephemeralContainers", sentence))
    volumes = {volume.get("name", ""): volume for volume in new.get("volumes") or ()}
    _containers(found, "spec", new, volumes)
    targets = [entry.get("name") for entry in new.get("containers") or ()]
    for index, entry in enumerate(new.get("ephemeralContainers") or ()):
        target = entry.get("targetContainerName")
        if target and target not in targets:
            found.append(status.not_found_field(f"spec.ephemeralContainers[{index}].targetContainerName", target))
