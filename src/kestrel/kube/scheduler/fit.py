"""May this pod run on that node, and which of several suits best; pure.

`misfits` gives the reasons against, in the words upstream's scheduler uses, because people search the web for them.
`unavailable` sums the reasons of all nodes up in upstream's one sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from kestrel.kube.api.pod_resources import amount, conflicts, host_ports, pod_requests
from kestrel.kube.api.selectors import Labels
from kestrel.kube.client import JSONObject

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
FINISHED = ("Succeeded", "Failed")


class Usage:
    """What the pods of one node take together; kept up pod by pod, so that a decision costs the same beside many."""

    def __init__(self) -> None:
        self._pods: dict[str, JSONObject] = {}
        self._needs: dict[str, dict[str, Fraction]] = {}
        self.requests: dict[str, Fraction] = {}

    def put(self, pod: JSONObject) -> None:
        """Count a pod, in place of what was counted for it before."""
        uid = str(pod["metadata"]["uid"])
        self.drop(uid)
        self._pods[uid] = pod
        self._needs[uid] = pod_requests(pod)
        for name, value in self._needs[uid].items():
            self.requests[name] = self.requests.get(name, Fraction(0)) + value

    def drop(self, uid: str) -> None:
        """Count a pod no more."""
        self._pods.pop(uid, None)
        for name, value in self._needs.pop(uid, {}).items():
            self.requests[name] -= value

    def pods(self) -> Iterable[JSONObject]:
        """Return the pods that count."""
        return self._pods.values()

    def __len__(self) -> int:
        return len(self._pods)


def misfits(pod: JSONObject, node: JSONObject, usage: Usage) -> list[str]:
    """Return why the pod may not run on the node beside those that are there; an empty list when it may."""
    for check in (_unschedulable, _untolerated, _unselected):
        reason = check(pod, node)
        if reason:
            return [reason]
    reasons = []
    wanted = host_ports(pod)
    if wanted and conflicts(wanted, (port for other in usage.pods() for port in host_ports(other))):
        reasons.append("node(s) didn't have free ports for the requested pod ports")
    return reasons + _insufficient(pod, node, usage) + _apart(pod, usage)


def unavailable(reasons: Iterable[Sequence[str]], nodes: int) -> str:
    """Return the sentence that says why none of `nodes` nodes will do, from each one's reasons."""
    if nodes == 0:
        return "no nodes available to schedule pods"
    counted = Counter(reason for of_one in reasons for reason in of_one)
    texts = sorted(f"{count} {reason}" for reason, count in counted.items())
    return f"0/{nodes} nodes are available: {', '.join(texts)}."


def score(pod: JSONObject, node: JSONObject, usage: Usage) -> Fraction:
    """Return how well the node suits: the share of it that is left, less for taints that ask to stay away."""
    free, whole = _free(node, usage), _allocatable(node)
    asked = pod_requests(pod)
    shares = [(free[name] - asked.get(name, 0)) / whole[name] for name in ("cpu", "memory") if whole.get(name)]
    soft = sum(1 for taint in _taints(node) if taint["effect"] == "PreferNoSchedule" and not _tolerates(pod, taint))
    crowd = Fraction(len(usage), 10_000)
    return (sum(shares, Fraction(0)) / len(shares) if shares else Fraction(0)) - soft - crowd


def _unschedulable(pod: JSONObject, node: JSONObject) -> str:
    if not node["spec"].get("unschedulable"):
        return ""
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return "" if _tolerates(pod, taint) else "node(s) were unschedulable"


def _untolerated(pod: JSONObject, node: JSONObject) -> str:
    for taint in _taints(node):
        if taint["effect"] in ("NoSchedule", "NoExecute") and not _tolerates(pod, taint):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"
    return ""


def _taints(node: JSONObject) -> list[JSONObject]:
    return list(node["spec"].get("taints") or ())


def _tolerates(pod: JSONObject, taint: JSONObject) -> bool:
    """Whether one of the pod's tolerations covers the taint (kubernetes.io "Taints and Tolerations")."""
    for toleration in pod["spec"].get("tolerations") or ():
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("key") not in (None, "", taint["key"]):
            continue
        exists = toleration.get("operator") == "Exists"
        if exists or (toleration.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")):
            return True
    return False


def _unselected(pod: JSONObject, node: JSONObject) -> str:
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    wanted = pod["spec"].get("nodeSelector") or {}
    if all(labels.get(key) == value for key, value in wanted.items()) and _affine(pod, node, labels):
        return ""
    return "node(s) didn't match Pod's node affinity/selector"


def _affine(pod: JSONObject, node: JSONObject, labels: Mapping[str, str]) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    fields = {"metadata.name": str(node["metadata"]["name"])}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and Labels.of(_gt_lt_free({"matchExpressions": term.get("matchExpressions") or []})).matches(labels)
        and Labels.of({"matchExpressions": term.get("matchFields") or []}).matches(fields)
        and _compares(term.get("matchExpressions") or (), labels)
        for term in required.get("nodeSelectorTerms") or ()
    )


def _gt_lt_free(selector: JSONObject) -> JSONObject:
    """Leave out Gt and Lt, which node selectors have and label selectors do not."""
    return {"matchExpressions": [e for e in selector["matchExpressions"] if e.get("operator") not in ("Gt", "Lt")]}


def _compares(expressions: Iterable[JSONObject], labels: Mapping[str, str]) -> bool:
    for expression in expressions:
        if expression.get("operator") in ("Gt", "Lt"):
            try:
                own, wanted = int(labels.get(expression["key"], "")), int(expression["values"][0])
            except ValueError:
                return False
            if not (own > wanted if expression["operator"] == "Gt" else own < wanted):
                return False
    return True


def _allocatable(node: JSONObject) -> dict[str, Fraction]:
    given: Mapping[str, Any] = (node.get("status") or {}).get("allocatable") or {}
    return {name: amount(value) for name, value in given.items()}


def _free(node: JSONObject, usage: Usage) -> dict[str, Fraction]:
    left = _allocatable(node)
    for name, value in usage.requests.items():
        left[name] = left.get(name, Fraction(0)) - value
    return left


def _insufficient(pod: JSONObject, node: JSONObject, usage: Usage) -> list[str]:
    given, left = _allocatable(node), _free(node, usage)
    reasons = []
    if len(usage) + 1 > given.get("pods", Fraction(110)):
        reasons.append("Too many pods")
    asked = pod_requests(pod)
    reasons += [f"Insufficient {n}" for n, value in sorted(asked.items()) if value and value > left.get(n, Fraction(0))]
    return reasons


def _apart(pod: JSONObject, usage: Usage) -> list[str]:
    """Check required rules about other pods, for the one topology every node has: the node itself."""
    affinity = pod["spec"].get("affinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    reasons = []
    together = (affinity.get("podAffinity") or {}).get(required) or ()
    if not all(_any_match(term, pod, usage.pods()) or _matches(term, pod, pod) for term in together):
        reasons.append("node(s) didn't match pod affinity rules")
    separate = (affinity.get("podAntiAffinity") or {}).get(required) or ()
    if any(_any_match(term, pod, usage.pods()) for term in separate):
        reasons.append("node(s) didn't match pod anti-affinity rules")
    for other in usage.pods():
        theirs = ((other["spec"].get("affinity") or {}).get("podAntiAffinity") or {}).get(required) or ()
        if any(_matches(term, other, pod) for term in theirs):
            reasons.append("node(s) didn't satisfy existing pods anti-affinity rules")
            break
    return reasons


def _any_match(term: JSONObject, owner: JSONObject, others: Iterable[JSONObject]) -> bool:
    return any(_matches(term, owner, other) for other in others)


def _matches(term: JSONObject, owner: JSONObject, other: JSONObject) -> bool:
    namespaces = term.get("namespaces") or [owner["metadata"]["namespace"]]
    if other["metadata"]["namespace"] not in namespaces:
        return False
    return Labels.of(term.get("labelSelector")).matches(other["metadata"].get("labels"))
