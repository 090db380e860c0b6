"""Which node may take a pod, and what is said when none may."""

import pytest

from kestrel.kube.scheduler import fit


def node(name="n1", *, cpu="2", memory="1Gi", pods="110", labels=None, **spec):
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": pods}},
    }


def pod(name="p", *, requests=None, limits=None, ports=(), labels=None, **spec):
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    container = {"name": "c", "image": "i", "resources": resources, "ports": list(ports)}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name, "labels": labels or {}},
        "spec": {"containers": [container], **spec},
    }


def usage(*pods):
    found = fit.Usage()
    for one in pods:
        found.put(one)
    return found


def test_a_plain_pod_fits():
    assert fit.misfits(pod(), node(), usage()) == []


@pytest.mark.parametrize(
    ("asked", "there", "reasons"),
    [
        (pod(requests={"cpu": "3"}), (), ["Insufficient cpu"]),
        (pod(requests={"memory": "1025Mi", "cpu": "3"}), (), ["Insufficient cpu", "Insufficient memory"]),
        (pod(limits={"memory": "2Gi"}), (), ["Insufficient memory"]),
        (pod(requests={"cpu": "1500m"}), (pod("q", requests={"cpu": "500m"}),), []),
        (pod(requests={"cpu": "1501m"}), (pod("q", requests={"cpu": "500m"}),), ["Insufficient cpu"]),
        (pod(requests={"example.com/gpu": "1"}), (), ["Insufficient example.com/gpu"]),
    ],
)
def test_requests_must_fit_into_what_is_left(asked, there, reasons):
    assert fit.misfits(asked, node(), usage(*there)) == reasons


def test_init_containers_need_the_larger_of_both():
    init = {"name": "i", "image": "i", "resources": {"requests": {"cpu": "3"}}}
    assert fit.misfits(pod(initContainers=[init]), node(), usage()) == ["Insufficient cpu"]
    sidecar = init | {"restartPolicy": "Always", "resources": {"requests": {"cpu": "1500m"}}}
    asked = pod(requests={"cpu": "600m"}, initContainers=[sidecar])
    assert fit.misfits(asked, node(), usage()) == ["Insufficient cpu"]


def test_there_may_be_too_many_pods():
    assert fit.misfits(pod(), node(pods="1"), usage(pod("q"))) == ["Too many pods"]


def test_a_pod_that_left_frees_its_share():
    there = usage(pod("q", requests={"cpu": "2"}))
    there.drop("q")
    there.drop("q")
    assert fit.misfits(pod(requests={"cpu": "2"}), node(), there) == []


def test_a_cordoned_node_takes_only_those_that_tolerate_it():
    assert fit.misfits(pod(), node(unschedulable=True), usage()) == ["node(s) were unschedulable"]
    tolerant = pod(tolerations=[{"operator": "Exists"}])
    assert fit.misfits(tolerant, node(unschedulable=True), usage()) == []


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        ({"key": "role", "operator": "Equal", "value": "db", "effect": "NoSchedule"}, True),
        ({"key": "role", "value": "db"}, True),
        ({"key": "role", "operator": "Exists"}, True),
        ({"key": "role", "value": "web"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "role", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
    ],
)
def test_taints_keep_away_whoever_does_not_tolerate_them(toleration, fits):
    tainted = node(taints=[{"key": "role", "value": "db", "effect": "NoSchedule"}])
    found = fit.misfits(pod(tolerations=[toleration] if toleration else []), tainted, usage())
    assert found == ([] if fits else ["node(s) had untolerated taint {role: db}"])


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}, True),
        ({"key": "disk", "operator": "NotIn", "values": ["ssd"]}, False),
        ({"key": "disk", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "DoesNotExist"}, True),
        ({"key": "gen", "operator": "Gt", "values": ["3"]}, True),
        ({"key": "gen", "operator": "Lt", "values": ["4"]}, False),
        ({"key": "disk", "operator": "Gt", "values": ["4"]}, False),
    ],
)
def test_required_node_affinity_is_kept(expression, fits):
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    asked = pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    found = fit.misfits(asked, node(labels={"disk": "ssd", "gen": "4"}), usage())
    assert found == ([] if fits else ["node(s) didn't match Pod's node affinity/selector"])


def test_a_node_can_be_chosen_by_its_name_field():
    field = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    asked = pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    assert fit.misfits(asked, node("n1"), usage())
    assert not fit.misfits(asked, node("n2"), usage())


def test_the_node_selector_must_match():
    assert fit.misfits(pod(nodeSelector={"disk": "ssd"}), node(), usage()) == [
        "node(s) didn't match Pod's node affinity/selector"
    ]


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        ({"containerPort": 80, "hostPort": 80}, {"containerPort": 1, "hostPort": 80}, True),
        ({"containerPort": 80, "hostPort": 80}, {"containerPort": 1, "hostPort": 80, "protocol": "UDP"}, False),
        ({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}, {"containerPort": 1, "hostPort": 80}, True),
        (
            {"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"},
            {"containerPort": 1, "hostPort": 80, "hostIP": "127.0.0.2"},
            False,
        ),
        ({"containerPort": 80}, {"containerPort": 80}, False),
    ],
)
def test_ports_of_the_host_belong_to_one_pod(mine, theirs, clash):
    found = fit.misfits(pod(ports=[mine]), node(), usage(pod("q", ports=[theirs])))
    assert found == (["node(s) didn't have free ports for the requested pod ports"] if clash else [])


def test_anti_affinity_holds_in_both_directions():
    term = {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"}
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    first, second = pod("a", labels={"app": "db"}, affinity=rule), pod("b", labels={"app": "db"})
    assert fit.misfits(first, node(), usage(second)) == ["node(s) didn't match pod anti-affinity rules"]
    assert fit.misfits(second, node(), usage(first)) == ["node(s) didn't satisfy existing pods anti-affinity rules"]


def test_the_sentence_counts_each_reason():
    assert fit.unavailable([["Insufficient memory"]], 1) == "0/1 nodes are available: 1 Insufficient memory."
    sentence = fit.unavailable([["Insufficient memory", "Insufficient cpu"], ["Insufficient cpu"]], 2)
    assert sentence == "0/2 nodes are available: 1 Insufficient memory, 2 Insufficient cpu."
    assert fit.unavailable([], 0) == "no nodes available to schedule pods"


def test_the_emptier_node_is_better_and_soft_taints_count():
    busy = usage(pod("q", requests={"cpu": "1"}))
    assert fit.score(pod(), node(), usage()) > fit.score(pod(), node(), busy)
    soft = node(taints=[{"key": "a", "effect": "PreferNoSchedule"}])
    assert fit.score(pod(), node(), busy) > fit.score(pod(), soft, usage())
