"""Security contexts of pod and container as the engine's words; pure (kubernetes.io "Configure a Security Context").

The container's own setting wins over the pod's. Seccomp is on by default, which is stricter than upstream's default
and equal to its `RuntimeDefault`.
"""

from pathlib import Path
from typing import Any

from kestrel.base.errors import FailedPrecondition, InvalidArgument
from kestrel.engine.model import Security
from kestrel.kube.client import JSONObject
from kestrel.kube.kubelet import pod as pods
from kestrel.pods.model import ImageInfo

SAFE_SYSCTLS = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
)  # fmt: skip
"""The sysctls a pod may set without asking the node's owner (kubernetes.io "Using sysctls in a Kubernetes Cluster")."""


def security(pod: JSONObject, container: JSONObject, image: ImageInfo, *, seccomp_root: Path) -> Security:
    """Return the container's rights; raises FailedPrecondition when `runAsNonRoot` cannot be kept."""
    whole = pod["spec"].get("securityContext") or {}
    own = container.get("securityContext") or {}
    user = _user(whole, own, image)
    _check_non_root(pod, container, whole, own, image)
    capabilities = own.get("capabilities") or {}
    groups = [int(group) for group in whole.get("supplementalGroups") or ()]
    if whole.get("fsGroup") is not None:
        groups.append(int(whole["fsGroup"]))
    return Security(
        privileged=bool(own.get("privileged")),
        user=user,
        groups=tuple(dict.fromkeys(groups)),
        add_capabilities=tuple(str(name) for name in capabilities.get("add") or ()),
        drop_capabilities=tuple(str(name) for name in capabilities.get("drop") or ()),
        no_new_privileges=own.get("allowPrivilegeEscalation") is False,
        read_only_root=bool(own.get("readOnlyRootFilesystem")),
        seccomp=_seccomp(own.get("seccompProfile") or whole.get("seccompProfile"), seccomp_root),
        unmask_proc=own.get("procMount") == "Unmasked",
    )


def sysctls(pod: JSONObject) -> dict[str, str]:
    """Return the kernel parameters of the pod; raises FailedPrecondition for one that reaches beyond the pod."""
    wanted = (pod["spec"].get("securityContext") or {}).get("sysctls") or ()
    result = {str(item["name"]).replace("/", "."): str(item["value"]) for item in wanted}
    for name in result:
        if name not in SAFE_SYSCTLS:
            raise FailedPrecondition(f'forbidden sysctl: "{name}" not allowlisted', hint="only safe sysctls may be set")
    return result


def users(pod: JSONObject) -> str:
    """Return the engine's word for whose users the pod has.

    `hostUsers` true and false are the API's own. Where upstream takes the host's users when a pod does not say, its
    containers get users of their own here, but for those that ask for what only the host's users can have.
    """
    asked = pod["spec"].get("hostUsers")
    return "auto" if asked is None else "host" if asked else "own"


def fs_group(pod: JSONObject) -> int | None:
    """Return the group that owns the pod's volumes."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def _either(whole: JSONObject, own: JSONObject, key: str) -> Any:
    return own[key] if own.get(key) is not None else whole.get(key)


def _user(whole: JSONObject, own: JSONObject, image: ImageInfo) -> str:
    """Return docker's form of the user, empty for the image's own."""
    uid, gid = _either(whole, own, "runAsUser"), _either(whole, own, "runAsGroup")
    if uid is None and gid is None:
        return ""
    name = str(uid) if uid is not None else (image.user.partition(":")[0] or "0")
    return name if gid is None else f"{name}:{gid}"


def _check_non_root(
    pod: JSONObject, container: JSONObject, whole: JSONObject, own: JSONObject, image: ImageInfo
) -> None:
    if not _either(whole, own, "runAsNonRoot"):
        return
    where = f'(pod: "{pods.title(pod)}", container: {container["name"]})'
    uid = _either(whole, own, "runAsUser")
    if uid is not None:
        if int(uid) == 0:
            raise FailedPrecondition(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image.user.partition(":")[0]
    if name in ("", "0", "root"):
        raise FailedPrecondition(
            f"container has runAsNonRoot and image will run as root {where}", hint="set runAsUser to another number"
        )
    if not name.isdigit():
        raise FailedPrecondition(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root "
            f"{where}",
            hint="set runAsUser to the number of that user",
        )


def _seccomp(profile: JSONObject | None, root: Path) -> str:
    kind = (profile or {}).get("type") or "RuntimeDefault"
    if kind == "RuntimeDefault":
        return "default"
    if kind == "Unconfined":
        return "unconfined"
    name = str((profile or {}).get("localhostProfile") or "")
    path = root / name
    if kind != "Localhost" or not name or name.startswith("/") or ".." in name.split("/"):
        raise InvalidArgument(f"invalid seccompProfile {kind} {name!r}".rstrip())
    return str(path)
