"""Subresources that are written to: binding, eviction, token. Each is a small rule over the verbs.

Status and finalize are ordinary updates of a part and live in `verbs`; log and the streams need the node and live in
`node`. What is not built says so.
"""

from __future__ import annotations

from kestrel.base.errors import Conflict, Unimplemented
from kestrel.kube.api import meta, status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.call import Call
from kestrel.kube.apiserver.tokens import LONGEST, SHORTEST, TokenSigner
from kestrel.kube.apiserver.verbs import Verbs
from kestrel.kube.client import DeleteOptions


class Subresources:
    """POSTs below an object."""

    def __init__(self, verbs: Verbs, signer: TokenSigner) -> None:
        self._verbs = verbs
        self._signer = signer

    async def post(
        self, resource: Resource, subresource: str, namespace: str, name: str, body: JSONObject, call: Call
    ) -> JSONObject:
        """Do what was posted and return the answer; raises by kind, MethodNotAllowed for what cannot be posted."""
        match (resource.plural, subresource):
            case ("pods", "binding"):
                return await self.bind(resource, namespace, name, body, call)
            case ("pods", "eviction"):
                return await self._evict(resource, namespace, name, body, call)
            case ("serviceaccounts", "token"):
                return self._token(resource, namespace, name, body)
        raise status.method_not_allowed(resource, "create")

    async def bind(self, resource: Resource, namespace: str, name: str, body: JSONObject, call: Call) -> JSONObject:
        """Give a pod its node, once."""
        target = body.get("target") or {}
        node = str(target.get("name") or "")
        if target.get("kind") not in (None, "", "Node"):
            kind = status.not_supported("target.kind", target.get("kind"), ["Node", "<empty>"])
            raise status.invalid_object(resource, name, [kind])
        if not node:
            raise status.invalid_object(resource, name, [status.required("target.name")])
        uid = meta.uid(body)

        def edit(pod: JSONObject) -> JSONObject:
            metadata = pod["metadata"]
            del metadata["resourceVersion"]
            if uid and uid != metadata["uid"]:
                why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
                raise status.conflict(resource, name, why)
            if metadata.get("deletionTimestamp"):
                raise status.conflict(resource, name, f"pod {name} is being deleted, cannot be assigned to a host")
            bound = pod["spec"].get("nodeName")
            if bound:
                raise _binding_conflict(resource, name, f'pod {name} is already assigned to node "{bound}"')
            pod["spec"]["nodeName"] = node
            now = meta.time(self._verbs.clock.now())
            found = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
            conditions = pod.setdefault("status", {}).setdefault("conditions", [])
            pod["status"]["conditions"] = [c for c in conditions if c.get("type") != "PodScheduled"] + [found]
            return pod

        await self._verbs.update(resource, namespace, name, edit, call, subresource="binding")
        return status.success(code=201)

    async def _evict(self, resource: Resource, namespace: str, name: str, body: JSONObject, call: Call) -> JSONObject:
        """Delete a pod as an eviction asks for it. Disruption budgets come with their kind."""
        wanted = body.get("deleteOptions") or {}
        preconditions = wanted.get("preconditions") or {}
        options = DeleteOptions(
            grace_seconds=wanted.get("gracePeriodSeconds"),
            uid=preconditions.get("uid"),
            resource_version=preconditions.get("resourceVersion"),
            dry_run=bool(wanted.get("dryRun")),
        )
        await self._verbs.delete(resource, namespace, name, options, call)
        return status.success(code=201)

    def _token(self, resource: Resource, namespace: str, name: str, body: JSONObject) -> JSONObject:
        """Sign a token for a service account (TokenRequest)."""
        account = self._verbs.get(resource, namespace, name).object
        spec = body.get("spec") or {}
        seconds = spec.get("expirationSeconds")
        seconds = 3600 if seconds is None else int(seconds)
        if seconds < SHORTEST:
            wrong = status.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
            raise self._invalid(resource, name, wrong)
        if seconds > LONGEST:
            wrong = status.invalid(
                "spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"
            )
            raise self._invalid(resource, name, wrong)
        pod = self._bound_pod(resource, namespace, name, spec.get("boundObjectRef"))
        audiences = [str(word) for word in spec.get("audiences") or self._signer.audiences]
        token, end = self._signer.sign(account, audiences, seconds, pod)
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "creationTimestamp": meta.time(self._verbs.clock.now()),
            },
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": end},
        }

    def _bound_pod(
        self, resource: Resource, namespace: str, name: str, reference: JSONObject | None
    ) -> JSONObject | None:
        if not reference:
            return None
        if reference.get("kind") != "Pod":
            raise Unimplemented("tokens can be bound to pods only", hint="leave boundObjectRef out, or name a Pod")
        pods = self._verbs.rules.scheme.by_plural("", "v1", "pods")
        assert pods is not None
        pod = self._verbs.get(pods, namespace, str(reference.get("name", ""))).object
        uid = reference.get("uid")
        if uid and uid != pod["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            raise status.conflict(
                pods, str(reference.get("name")), why + "The object might have been deleted and then recreated"
            )
        used = (pod.get("spec") or {}).get("serviceAccountName")
        if used != name:
            why = f'cannot bind token for serviceaccount "{name}" to pod running with different serviceaccount name.'
            raise status.forbidden(resource, name, why)
        return pod

    def _invalid(self, resource: Resource, name: str, wrong: status.FieldError) -> Exception:
        return status.invalid_object(resource, name, [wrong])


def _binding_conflict(resource: Resource, name: str, why: str) -> Exception:
    message = f'Operation cannot be fulfilled on pods/binding "{name}": {why}'
    details = {"name": name, "kind": "pods/binding", "group": resource.group}
    return Conflict(message, status=status.status(409, "Conflict", message, details))
