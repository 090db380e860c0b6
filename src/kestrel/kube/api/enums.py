"""The words a field may have, by definition and field: what validation accepts, told to `kubectl explain`.

The published schemas carry no enumerations, so this table joins the words of the validation rules to the fields they
guard. A field that is missing here is only less well documented.
"""

from __future__ import annotations

from kestrel.kube.api import container_rules, pod_rules, volume_rules

_CORE = "io.k8s.api.core.v1."
_PULLS = container_rules.PULL_POLICIES
_MESSAGES = container_rules.MESSAGE_POLICIES
_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")

_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "PodSpec": {
        "dnsPolicy": pod_rules.DNS_POLICIES,
        "preemptionPolicy": pod_rules.PREEMPTION_POLICIES,
        "restartPolicy": pod_rules.RESTART_POLICIES,
    },
    "PodStatus": {
        "phase": ("Failed", "Pending", "Running", "Succeeded", "Unknown"),
        "qosClass": ("BestEffort", "Burstable", "Guaranteed"),
    },
    "PodSecurityContext": {"fsGroupChangePolicy": pod_rules.GROUP_CHANGES},
    "Container": {"imagePullPolicy": _PULLS, "terminationMessagePolicy": _MESSAGES},
    "EphemeralContainer": {"imagePullPolicy": _PULLS, "terminationMessagePolicy": _MESSAGES},
    "ContainerPort": {"protocol": container_rules.PROTOCOLS},
    "HTTPGetAction": {"scheme": ("HTTP", "HTTPS")},
    "HostPathVolumeSource": {"type": volume_rules.HOST_PATH_TYPES},
    "NamespaceStatus": {"phase": ("Active", "Terminating")},
    "NodeSelectorRequirement": {"operator": _OPERATORS},
    "PersistentVolumeClaimSpec": {"volumeMode": volume_rules.VOLUME_MODES},
    "PersistentVolumeClaimStatus": {"phase": ("Bound", "Lost", "Pending")},
    "PersistentVolumeSpec": {
        "persistentVolumeReclaimPolicy": volume_rules.RECLAIM_POLICIES,
        "volumeMode": volume_rules.VOLUME_MODES,
    },
    "PersistentVolumeStatus": {"phase": ("Available", "Bound", "Failed", "Pending", "Released")},
    "SeccompProfile": {"type": container_rules.SECCOMP_TYPES},
    "SecurityContext": {"procMount": container_rules.PROC_MOUNTS},
    "Taint": {"effect": pod_rules.EFFECTS},
    "Toleration": {"effect": pod_rules.EFFECTS, "operator": ("Equal", "Exists")},
    "VolumeMount": {"mountPropagation": container_rules.PROPAGATIONS},
}

ENUMS = {_CORE + name: fields for name, fields in _WORDS.items()}
"""Words by field, by full definition name."""
