"""Reviews: questions about identity and permission, answered at once and never stored."""

from __future__ import annotations

from kestrel.kube.api import meta, status
from kestrel.kube.api.scheme import JSONObject, Resource
from kestrel.kube.apiserver.auth import Attributes, Authenticator, allowed
from kestrel.kube.apiserver.call import AUTHENTICATED, Caller


class Reviews:
    """Answers POSTs to authentication.k8s.io and authorization.k8s.io."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def answer(self, resource: Resource, namespace: str, body: JSONObject, caller: Caller) -> JSONObject:
        """Return the review with its status; raises MethodNotAllowed for kinds that are no reviews."""
        spec = body.get("spec") or {}
        match resource.plural:
            case "selfsubjectreviews":
                found: JSONObject = {"userInfo": _user(caller)}
            case "tokenreviews":
                found = self._token(spec)
            case "selfsubjectaccessreviews":
                found = _access(caller, spec)
            case "subjectaccessreviews" | "localsubjectaccessreviews":
                found = _access(_subject(spec), spec, namespace)
            case "selfsubjectrulesreviews":
                found = _rules(caller)
            case _:
                raise status.method_not_allowed(resource, "create")
        metadata = {**meta.metadata(body), "creationTimestamp": None}
        return {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": metadata,
            **({"spec": spec} if resource.plural != "selfsubjectreviews" else {}),
            "status": found,
        }

    def _token(self, spec: JSONObject) -> JSONObject:
        audiences = [str(word) for word in spec.get("audiences") or ()]
        caller = self._authenticator.of_token(str(spec.get("token") or ""), audiences)
        if caller is None:
            return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": _user(caller)} | ({"audiences": audiences} if audiences else {})


def _user(caller: Caller) -> JSONObject:
    found: JSONObject = {"username": caller.name, "groups": list(caller.groups)}
    if caller.uid:
        found["uid"] = caller.uid
    if caller.extra:
        found["extra"] = {key: list(values) for key, values in caller.extra.items()}
    return found


def _subject(spec: JSONObject) -> Caller:
    groups = [str(group) for group in spec.get("groups") or ()]
    return Caller(name=str(spec.get("user") or ""), groups=tuple({*groups, AUTHENTICATED}))


def _access(caller: Caller, spec: JSONObject, namespace: str = "") -> JSONObject:
    asked = spec.get("resourceAttributes")
    if asked:
        attributes = Attributes(
            verb=str(asked.get("verb", "")),
            group=str(asked.get("group", "")),
            version=str(asked.get("version", "")),
            resource=str(asked.get("resource", "") or "*"),
            subresource=str(asked.get("subresource", "")),
            namespace=str(asked.get("namespace", "") or namespace),
            name=str(asked.get("name", "")),
        )
    else:
        path = spec.get("nonResourceAttributes") or {}
        attributes = Attributes(verb=str(path.get("verb", "")), path=str(path.get("path", "")))
    return {"allowed": allowed(caller, attributes)}


def _rules(caller: Caller) -> JSONObject:
    """List what a caller may do (`kubectl auth can-i --list`)."""
    self_reviews = {
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io", "authentication.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"],
    }
    paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
    ]
    known = {"verbs": ["get"], "nonResourceURLs": paths}
    if caller.is_master:
        resources = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, self_reviews]
        return {
            "resourceRules": resources,
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}, known],
            "incomplete": False,
        }
    return {"resourceRules": [self_reviews], "nonResourceRules": [known], "incomplete": False}
