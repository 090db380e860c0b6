"""The table of resources: what each kind is called, where it is served, and what may be done with it.

A new kind is one row of `RESOURCES` and a regenerated schema file (`tools/generate_schemas.py`). Discovery, OpenAPI,
routing, printing and selectors are all derived from the rows; nothing else lists kinds. `BUILTIN` holds the rows of
this file as a `Scheme`; custom resources make a new `Scheme` by `extended`.

Two rows may share a storage: an Event is served as `v1` and as `events.k8s.io/v1` and kept once, in the form of the
row that `storage_version` names. `kestrel.kube.api.events` converts between the two.
"""

from __future__ import annotations

from kestrel.kube.api.resource import (
    CRUD,
    Column,
    GroupVersionKind,
    JSONObject,
    Resource,
    Scheme,
    Selectable,
    Subresource,
    api_version,
    split_api_version,
)

__all__ = [
    "CRUD", "BUILTIN", "EXTRA_KINDS", "RESOURCES", "Column", "GroupVersionKind", "JSONObject", "Resource", "Scheme",
    "Selectable", "Subresource", "api_version", "by_kind", "by_plural", "split_api_version",
]  # fmt: skip

AGE = Column("Age", ".metadata.creationTimestamp", type="date", description="Time since the object was created")
NAME = Column("Name", ".metadata.name", type="string", format="name", description="Name, unique within its namespace")

_STATUS = Subresource("status", ("get", "patch", "update"))

_EVENT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT_COLUMNS = (
    Column("Last Seen", "event_last_seen", description="Time since the event was last seen"),
    Column("Type", "event_type", description="Normal or Warning"),
    Column("Reason", "event_reason", description="Short word for why the event happened"),
    Column("Object", "event_object", description="The object the event is about"),
    Column("Subobject", "event_subobject", 1, description="Part of the object"),
    Column("Source", "event_source", 1, description="The component that reports"),
    Column("Message", "event_message", description="What happened, for people"),
    Column("First Seen", "event_first_seen", 1, description="Time since the event was first seen"),
    Column("Count", "event_count", 1, description="How often it happened"),
    Column("Name", ".metadata.name", 1, format="name", description="Name of the event"),
)

RESOURCES: tuple[Resource, ...] = (
    Resource(
        kind="Binding",
        plural="bindings",
        singular="binding",
        verbs=("create",),
        stored=False,
    ),
    Resource(
        kind="ConfigMap",
        plural="configmaps",
        singular="configmap",
        short_names=("cm",),
        columns=(NAME, Column("Data", "data_count", description="Number of keys"), AGE),
    ),
    Resource(
        kind="Event",
        plural="events",
        singular="event",
        short_names=("ev",),
        columns=_EVENT_COLUMNS,
        selectable=(
            *(Selectable(f"involvedObject.{field}", ("involvedObject", field)) for field in _EVENT_FIELDS),
            Selectable("reason", ("reason",)),
            Selectable("reportingComponent", ("reportingComponent",)),
            Selectable("source", ("source", "component")),
            Selectable("type", ("type",)),
        ),
    ),
    Resource(
        kind="Namespace",
        plural="namespaces",
        singular="namespace",
        short_names=("ns",),
        namespaced=False,
        verbs=tuple(verb for verb in CRUD if verb != "deletecollection"),
        subresources=(Subresource("finalize", ("update",)), _STATUS),
        columns=(NAME, Column("Status", ".status.phase", description="Phase of the namespace"), AGE),
        selectable=(Selectable("status.phase", ("status", "phase")),),
    ),
    Resource(
        kind="Node",
        plural="nodes",
        singular="node",
        short_names=("no",),
        namespaced=False,
        subresources=(_STATUS,),
        columns=(
            NAME,
            Column("Status", "node_status", description="Readiness, and whether it takes pods"),
            Column("Roles", "node_roles", description="Roles by label"),
            AGE,
            Column("Version", ".status.nodeInfo.kubeletVersion", description="Version of the kubelet"),
            Column("Internal-IP", "node_internal_ip", 1, description="Address inside the cluster"),
            Column("External-IP", "node_external_ip", 1, description="Address outside the cluster"),
            Column("OS-Image", "node_os_image", 1, description="Operating system"),
            Column("Kernel-Version", "node_kernel", 1, description="Kernel release"),
            Column("Container-Runtime", "node_runtime", 1, description="Container runtime and its version"),
        ),
        selectable=(Selectable("spec.unschedulable", ("spec", "unschedulable"), "false"),),
    ),
    Resource(
        kind="PersistentVolumeClaim",
        plural="persistentvolumeclaims",
        singular="persistentvolumeclaim",
        short_names=("pvc",),
        subresources=(_STATUS,),
        columns=(
            NAME,
            Column("Status", "claim_status", description="Phase, or Terminating"),
            Column("Volume", ".spec.volumeName", description="The bound volume"),
            Column("Capacity", "claim_capacity", description="Size of the bound volume"),
            Column("Access Modes", "claim_access_modes", description="How it may be mounted"),
            Column("StorageClass", "storage_class", description="Storage class"),
            Column("VolumeAttributesClass", "attributes_class", description="Volume attributes class"),
            AGE,
            Column("VolumeMode", "volume_mode", 1, description="Filesystem or Block"),
        ),
    ),
    Resource(
        kind="PersistentVolume",
        plural="persistentvolumes",
        singular="persistentvolume",
        short_names=("pv",),
        namespaced=False,
        subresources=(_STATUS,),
        columns=(
            NAME,
            Column("Capacity", ".spec.capacity.storage", description="Size"),
            Column("Access Modes", "volume_access_modes", description="How it may be mounted"),
            Column("Reclaim Policy", ".spec.persistentVolumeReclaimPolicy", description="What happens on release"),
            Column("Status", "volume_status", description="Phase, or Terminating"),
            Column("Claim", "volume_claim", description="The claim it is bound to"),
            Column("StorageClass", "storage_class", description="Storage class"),
            Column("VolumeAttributesClass", "attributes_class", description="Volume attributes class"),
            Column("Reason", ".status.reason", description="Why it is in this phase"),
            AGE,
            Column("VolumeMode", "volume_mode", 1, description="Filesystem or Block"),
        ),
    ),
    Resource(
        kind="Pod",
        plural="pods",
        singular="pod",
        short_names=("po",),
        categories=("all",),
        subresources=(
            Subresource("attach", ("create", "get"), kind="PodAttachOptions"),
            Subresource("binding", ("create",), kind="Binding"),
            Subresource("ephemeralcontainers", ("get", "patch", "update")),
            Subresource("eviction", ("create",), "policy", "v1", "Eviction"),
            Subresource("exec", ("create", "get"), kind="PodExecOptions"),
            Subresource("log", ("get",)),
            Subresource("portforward", ("create", "get"), kind="PodPortForwardOptions"),
            _STATUS,
        ),
        columns=(
            NAME,
            Column("Ready", "pod_ready", description="Ready containers of all containers"),
            Column("Status", "pod_status", description="One word for the state of the pod"),
            Column("Restarts", "pod_restarts", description="Restarts, and the time since the last one"),
            AGE,
            Column("IP", "pod_ip", 1, description="Address of the pod"),
            Column("Node", "pod_node", 1, description="The node it runs on"),
            Column("Nominated Node", "pod_nominated_node", 1, description="The node it may be given"),
            Column("Readiness Gates", "pod_readiness_gates", 1, description="Further conditions of readiness"),
        ),
        selectable=(
            Selectable("spec.nodeName", ("spec", "nodeName")),
            Selectable("spec.restartPolicy", ("spec", "restartPolicy")),
            Selectable("spec.schedulerName", ("spec", "schedulerName")),
            Selectable("spec.serviceAccountName", ("spec", "serviceAccountName")),
            Selectable("spec.hostNetwork", ("spec", "hostNetwork"), "false"),
            Selectable("status.phase", ("status", "phase")),
            Selectable("status.podIP", ("status", "podIP")),
            Selectable("status.nominatedNodeName", ("status", "nominatedNodeName")),
        ),
    ),
    Resource(
        kind="Secret",
        plural="secrets",
        singular="secret",
        columns=(
            NAME,
            Column("Type", ".type", description="What the secret is for"),
            Column("Data", "data_count", description="Number of keys"),
            AGE,
        ),
        selectable=(Selectable("type", ("type",)),),
    ),
    Resource(
        kind="ServiceAccount",
        plural="serviceaccounts",
        singular="serviceaccount",
        short_names=("sa",),
        subresources=(Subresource("token", ("create",), "authentication.k8s.io", "v1", "TokenRequest"),),
        columns=(NAME, Column("Secrets", "secret_count", description="Number of secrets"), AGE),
    ),
    Resource(
        group="events.k8s.io",
        kind="Event",
        plural="events",
        singular="event",
        short_names=("ev",),
        storage=("", "v1"),
        columns=_EVENT_COLUMNS,
        selectable=(
            *(Selectable(f"regarding.{field}", ("regarding", field)) for field in _EVENT_FIELDS),
            Selectable("reason", ("reason",)),
            Selectable("reportingController", ("reportingController",)),
            Selectable("type", ("type",)),
        ),
    ),
    Resource(
        group="authentication.k8s.io",
        kind="SelfSubjectReview",
        plural="selfsubjectreviews",
        singular="selfsubjectreview",
        namespaced=False,
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="authentication.k8s.io",
        kind="TokenReview",
        plural="tokenreviews",
        singular="tokenreview",
        namespaced=False,
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="authorization.k8s.io",
        kind="LocalSubjectAccessReview",
        plural="localsubjectaccessreviews",
        singular="localsubjectaccessreview",
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="authorization.k8s.io",
        kind="SelfSubjectAccessReview",
        plural="selfsubjectaccessreviews",
        singular="selfsubjectaccessreview",
        namespaced=False,
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="authorization.k8s.io",
        kind="SelfSubjectRulesReview",
        plural="selfsubjectrulesreviews",
        singular="selfsubjectrulesreview",
        namespaced=False,
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="authorization.k8s.io",
        kind="SubjectAccessReview",
        plural="subjectaccessreviews",
        singular="subjectaccessreview",
        namespaced=False,
        verbs=("create",),
        stored=False,
    ),
    Resource(
        group="storage.k8s.io",
        kind="StorageClass",
        plural="storageclasses",
        singular="storageclass",
        short_names=("sc",),
        namespaced=False,
        columns=(
            Column("Name", "class_name", format="name", description="Name, marked when it is the default class"),
            Column("Provisioner", ".provisioner", description="What makes the volumes"),
            Column("ReclaimPolicy", "class_reclaim_policy", description="What happens on release"),
            Column("VolumeBindingMode", "class_binding_mode", description="When a volume is bound"),
            Column("AllowVolumeExpansion", "class_expansion", description="Whether claims may grow"),
            AGE,
        ),
    ),
    Resource(
        group="coordination.k8s.io",
        kind="Lease",
        plural="leases",
        singular="lease",
        columns=(NAME, Column("Holder", ".spec.holderIdentity", description="Who holds the lease"), AGE),
    ),
)

EXTRA_KINDS: tuple[GroupVersionKind, ...] = (
    GroupVersionKind("", "v1", "Status"),
    GroupVersionKind("", "v1", "DeleteOptions"),
    GroupVersionKind("", "v1", "WatchEvent"),
    GroupVersionKind("", "v1", "APIGroup"),
    GroupVersionKind("", "v1", "APIGroupList"),
    GroupVersionKind("", "v1", "APIResourceList"),
    GroupVersionKind("", "v1", "APIVersions"),
)
"""Kinds that travel in bodies and have no path of their own; the generator keeps their schemas."""

BUILTIN = Scheme(RESOURCES)
"""The resources every Kestrel serves."""


def by_plural(group: str, version: str, plural: str) -> Resource | None:
    """The built-in resource a request path names, or None."""
    return BUILTIN.by_plural(group, version, plural)


def by_kind(group: str, version: str, kind: str) -> Resource | None:
    """The built-in resource whose objects have this kind, or None."""
    return BUILTIN.by_kind(group, version, kind)
