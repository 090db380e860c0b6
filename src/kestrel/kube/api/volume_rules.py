"""What volumes, persistent volumes and claims must be; part of `validation`.

The rules are those of the field descriptions in core/v1 Volume, PersistentVolume and PersistentVolumeClaim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kestrel.kube.api import checks, names, quantity, status
from kestrel.kube.api.checks import Found
from kestrel.kube.api.container_rules import field_reference, resource_reference
from kestrel.kube.api.resource import JSONObject

HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
MEDIA = ("", "HugePages", "Memory")
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_SHARED_FIELDS = frozenset(
    "accessModes capacity claimRef mountOptions nodeAffinity persistentVolumeReclaimPolicy storageClassName "
    "volumeAttributesClassName volumeMode".split()
)


def volumes(found: Found, path: str, entries: Iterable[JSONObject]) -> dict[str, JSONObject]:
    """Check a pod's volumes; returns them by name."""
    by_name: dict[str, JSONObject] = {}
    for index, volume in enumerate(entries):
        below = f"{path}[{index}]"
        name = volume.get("name") or ""
        checks.named(found, f"{below}.name", name, names.dns_label)
        if name in by_name:
            found.append(status.duplicate(f"{below}.name", name))
        by_name[name] = volume
        kinds = [field for field in volume if field != "name"]
        kind = checks.only_one(found, below, volume, kinds, "volume")
        check = _SOURCES.get(kind or "")
        if check is not None:
            check(found, f"{below}.{kind}", volume[kind or ""])
    return by_name


def _host_path(found: Found, path: str, source: JSONObject) -> None:
    if not source.get("path"):
        found.append(status.required(f"{path}.path"))
    else:
        checks.backsteps(found, f"{path}.path", source["path"])
    checks.one_of(found, f"{path}.type", source.get("type"), HOST_PATH_TYPES)


def _empty_dir(found: Found, path: str, source: JSONObject) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and quantity.parse(limit) < 0:
        found.append(status.forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))
    medium = source.get("medium") or ""
    if not medium.startswith("HugePages-"):
        checks.one_of(found, f"{path}.medium", medium, MEDIA)


def _secret(found: Found, path: str, source: JSONObject) -> None:
    if not source.get("secretName"):
        found.append(status.required(f"{path}.secretName"))
    checks.file_mode(found, f"{path}.defaultMode", source.get("defaultMode"))
    _items(found, f"{path}.items", source.get("items") or ())


def _config_map(found: Found, path: str, source: JSONObject) -> None:
    if not source.get("name"):
        found.append(status.required(f"{path}.name"))
    checks.file_mode(found, f"{path}.defaultMode", source.get("defaultMode"))
    _items(found, f"{path}.items", source.get("items") or ())


def _items(found: Found, path: str, items: Iterable[JSONObject]) -> None:
    for index, item in enumerate(items):
        below = f"{path}[{index}]"
        if not item.get("key"):
            found.append(status.required(f"{below}.key"))
        _file(found, below, item)


def _file(found: Found, path: str, item: JSONObject) -> None:
    """Where a projected file goes, and its mode."""
    place = item.get("path") or ""
    if not place:
        found.append(status.required(f"{path}.path"))
    else:
        checks.relative_path(found, f"{path}.path", place)
        if place.startswith(".."):
            found.append(status.invalid(f"{path}.path", place, "must not start with '..'"))
    checks.file_mode(found, f"{path}.mode", item.get("mode"))


def _downward_api(found: Found, path: str, source: JSONObject) -> None:
    checks.file_mode(found, f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items") or ()):
        below = f"{path}[{index}]"
        _file(found, below, item)
        if item.get("fieldRef") is not None:
            if item.get("resourceFieldRef") is not None:
                sentence = "fieldRef and resourceFieldRef can not be specified simultaneously"
                found.append(status.invalid(below, "resource", sentence))
            field_reference(found, f"{below}.fieldRef", item["fieldRef"], VOLUME_FIELDS, subscripts=True)
        elif item.get("resourceFieldRef") is not None:
            resource_reference(found, f"{below}.resourceFieldRef", item["resourceFieldRef"], in_volume=True)
        else:
            found.append(status.required(below, "one of fieldRef and resourceFieldRef is required"))


def _projected(found: Found, path: str, source: JSONObject) -> None:
    checks.file_mode(found, f"{path}.defaultMode", source.get("defaultMode"))
    for index, entry in enumerate(source.get("sources") or ()):
        below = f"{path}.sources[{index}]"
        given = [kind for kind in entry if entry[kind] is not None]
        for extra in given[1:]:
            found.append(status.forbidden_field(f"{below}.{extra}", "may not specify more than 1 volume type"))
        if not given:
            found.append(status.required(below, "must specify a volume type"))
        elif given[0] in ("secret", "configMap"):
            if not entry[given[0]].get("name"):
                found.append(status.required(f"{below}.{given[0]}.name"))
            _items(found, f"{below}.{given[0]}.items", entry[given[0]].get("items") or ())
        elif given[0] == "downwardAPI":
            _downward_api(found, f"{below}.downwardAPI", entry["downwardAPI"])
        elif given[0] == "serviceAccountToken":
            _token(found, f"{below}.serviceAccountToken", entry["serviceAccountToken"])


def _token(found: Found, path: str, source: JSONObject) -> None:
    seconds = source.get("expirationSeconds", 3600)
    if seconds < 600:
        sentence = "may not specify a duration less than 10 minutes"
        found.append(status.invalid(f"{path}.expirationSeconds", seconds, sentence))
    if not source.get("path"):
        found.append(status.required(f"{path}.path"))
    else:
        checks.relative_path(found, f"{path}.path", source["path"])


def _claim_source(found: Found, path: str, source: JSONObject) -> None:
    if not source.get("claimName"):
        found.append(status.required(f"{path}.claimName"))


def _nfs(found: Found, path: str, source: JSONObject) -> None:
    for field in ("server", "path"):
        if not source.get(field):
            found.append(status.required(f"{path}.{field}"))
    if source.get("path") and not source["path"].startswith("/"):
        found.append(status.invalid(f"{path}.path", source["path"], "must be an absolute path"))


def _local(found: Found, path: str, source: JSONObject) -> None:
    if not source.get("path"):
        found.append(status.required(f"{path}.path"))
    else:
        checks.backsteps(found, f"{path}.path", source["path"])


_SOURCES: dict[str, Callable[[Found, str, JSONObject], None]] = {
    "hostPath": _host_path,
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward_api,
    "projected": _projected,
    "persistentVolumeClaim": _claim_source,
    "nfs": _nfs,
    "local": _local,
}


# -- persistent volumes -----------------------------------------------------------------------------------------------


def persistent_volume(found: Found, volume: JSONObject, old: JSONObject | None) -> None:
    """Check a PersistentVolume, and that its source stays."""
    spec = volume.get("spec") or {}
    _access_modes(found, spec, "at least 1 access mode is required")
    capacity = spec.get("capacity") or {}
    if not capacity:
        found.append(status.required("spec.capacity"))
    elif "storage" not in capacity or len(capacity) > 1:
        found.append(status.not_supported("spec.capacity", capacity, ["storage"]))
    else:
        _positive(found, "spec.capacity[storage]", capacity["storage"])
    policy = spec.get("persistentVolumeReclaimPolicy")
    checks.one_of(found, "spec.persistentVolumeReclaimPolicy", policy, RECLAIM_POLICIES)
    checks.one_of(found, "spec.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    if spec.get("storageClassName"):
        checks.syntax(found, "spec.storageClassName", spec["storageClassName"], names.dns_subdomain)
    kinds = [field for field in spec if field not in _SHARED_FIELDS]
    kind = checks.only_one(found, "spec", spec, kinds, "volume")
    if kind in _SOURCES:
        _SOURCES[kind](found, f"spec.{kind}", spec[kind])
    if kind == "local" and not spec.get("nodeAffinity"):
        found.append(status.required("spec.nodeAffinity", "Local volume requires node affinity"))
    if old is not None:
        _same_source(found, spec, old.get("spec") or {})


def _same_source(found: Found, new: JSONObject, old: JSONObject) -> None:
    def source(spec: JSONObject) -> JSONObject:
        return {field: value for field, value in spec.items() if field not in _SHARED_FIELDS}

    if source(new) != source(old):
        sentence = "spec.persistentvolumesource is immutable after creation"
        found.append(status.forbidden_field("spec.persistentvolumesource", sentence))
    checks.unchanged(found, "spec.volumeMode", new.get("volumeMode"), old.get("volumeMode"))


def _access_modes(found: Found, spec: JSONObject, why: str) -> None:
    modes = spec.get("accessModes") or ()
    if not modes:
        found.append(status.required("spec.accessModes", why))
    for mode in modes:
        checks.one_of(found, "spec.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        sentence = "may not use ReadWriteOncePod with other access modes"
        found.append(status.forbidden_field("spec.accessModes", sentence))


def _positive(found: Found, path: str, amount: Any) -> None:
    if quantity.parse(amount) <= 0:
        found.append(status.invalid(path, amount, "must be greater than zero"))


def claim(found: Found, entry: JSONObject, old: JSONObject | None) -> None:
    """Check a PersistentVolumeClaim, and what may change in it."""
    spec = entry.get("spec") or {}
    claim_spec(found, spec)
    if old is not None:
        _claim_update(found, entry, old)


def claim_spec(found: Found, spec: JSONObject) -> None:
    """Check the spec of a claim or of a claim template."""
    _access_modes(found, spec, "at least 1 access mode is required")
    amount = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if amount is None:
        found.append(status.required("spec.resources[storage]"))
    else:
        _positive(found, "spec.resources[storage]", amount)
    checks.one_of(found, "spec.volumeMode", spec.get("volumeMode"), VOLUME_MODES)
    checks.label_selector(found, "spec.selector", spec.get("selector"))
    if spec.get("storageClassName"):
        checks.syntax(found, "spec.storageClassName", spec["storageClassName"], names.dns_subdomain)


def _claim_update(found: Found, entry: JSONObject, old: JSONObject) -> None:
    new_spec, old_spec = dict(entry.get("spec") or {}), dict(old.get("spec") or {})
    for field in ("volumeName", "storageClassName"):  # may be filled in once, by the binder and by admission
        if not old_spec.get(field):
            new_spec.pop(field, None)
            old_spec.pop(field, None)
    new_resources, old_resources = new_spec.pop("resources", None) or {}, old_spec.pop("resources", None) or {}
    new_spec.pop("volumeAttributesClassName", None)
    old_spec.pop("volumeAttributesClassName", None)
    bound = (old.get("status") or {}).get("phase") == "Bound"
    if new_spec != old_spec or (not bound and new_resources != old_resources):
        sentence = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        found.append(status.forbidden_field("spec", sentence))
        return
    new_size, old_size = (((r.get("requests") or {}).get("storage")) for r in (new_resources, old_resources))
    if new_size is None or old_size is None:
        return
    held = ((old.get("status") or {}).get("capacity") or {}).get("storage", old_size)
    if quantity.parse(new_size) < min(quantity.parse(old_size), quantity.parse(held)):
        sentence = "field can not be less than status.capacity"
        found.append(status.forbidden_field("spec.resources.requests.storage", sentence))
