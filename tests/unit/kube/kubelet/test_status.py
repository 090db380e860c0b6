"""What the kubelet says of pods: tables of what there is and the status it makes."""

import pytest

from kestrel.base.clock import rfc3339
from kestrel.kube.kubelet.backoff import Failure, RestartBackoff
from kestrel.kube.kubelet.status import Host, build, difference
from kestrel.kube.kubelet.sync import ContainerMemory, Health, Outcome

HOST = Host("192.0.2.1")


def made(view, **more):
    return build(view, HOST, **more)


def phase(view, **more):
    return made(view, **more)["phase"]


def condition(status, kind):
    return next(c for c in status["conditions"] if c["type"] == kind)


@pytest.mark.parametrize(
    ("policy", "containers", "wanted"),
    [
        ("Always", [("a", "running", 0), ("b", "running", 0)], "Running"),
        ("Always", [("a", "running", 0)], "Pending"),
        ("Always", [("a", "running", 0), ("b", "exited", 1)], "Running"),
        ("Always", [("a", "exited", 0), ("b", "exited", 0)], "Running"),
        ("Never", [("a", "exited", 0), ("b", "exited", 0)], "Succeeded"),
        ("Never", [("a", "exited", 0), ("b", "exited", 1)], "Failed"),
        ("Never", [("a", "exited", 1), ("b", "running", 0)], "Running"),
        ("OnFailure", [("a", "exited", 0), ("b", "exited", 0)], "Succeeded"),
        ("OnFailure", [("a", "exited", 0), ("b", "exited", 1)], "Running"),
        ("Always", [], "Pending"),
    ],
)
def test_the_phase_sums_the_containers_up(make, policy, containers, wanted):
    record = make.record(*(make.container(name, state, exit_code=code) for name, state, code in containers))
    assert phase(make.view(make.pod("a", "b", policy=policy), record)) == wanted


def test_a_deleted_pod_ends_as_its_containers_did(make):
    for code, wanted in ((0, "Succeeded"), (143, "Failed")):
        record = make.record(make.container("app", "exited", exit_code=code))
        assert phase(make.view(make.pod(), record), ending=True) == wanted


def test_a_final_phase_stays(make):
    status = {"phase": "Failed", "reason": "Evicted", "message": "m", "podIP": "10.0.0.1"}
    found = made(make.view(make.pod(status=status)))
    assert (found["phase"], found["reason"], found["podIP"]) == ("Failed", "Evicted", "10.0.0.1")


def test_a_forced_outcome_waits_for_the_last_container(make):
    outcome = Outcome(phase="Failed", reason="DeadlineExceeded", message="m")
    view = make.view(make.pod(), make.record(make.container()))
    assert phase(view, outcome=outcome, ending=True) == "Running"
    view = make.view(make.pod(), make.record(make.container("app", "exited", exit_code=0)))
    found = made(view, outcome=outcome, ending=True)
    assert (found["phase"], found["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(make):
    pod = make.pod(inits=("i",), policy="Never")
    assert phase(make.view(pod, make.record(make.container("i", "exited", exit_code=1)))) == "Failed"


def test_a_pod_is_pending_while_it_initializes(make):
    found = made(make.view(make.pod(inits=("i",)), make.record(make.container("i"))))
    assert found["phase"] == "Pending"
    assert found["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition(found, "Initialized")["message"] == "containers with incomplete status: [i]"


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        (ContainerMemory(), "ContainerCreating"),
        (ContainerMemory(failure=Failure(reason="RunContainerError", message="m", at=0, retry=9)), "RunContainerError"),
        (ContainerMemory(image_failure=Failure(reason="ErrImagePull", message="m", at=0, retry=9)), "ErrImagePull"),
    ],
)  # fmt: skip
def test_a_waiting_container_says_why(make, memory, reason):
    found = made(make.view(make.pod(), make.record(), memory={"app": memory}))
    assert found["containerStatuses"][0]["state"]["waiting"]["reason"] == reason


def test_err_image_pull_becomes_image_pull_back_off(make):
    failure = Failure(
        reason="ErrImagePull", message="m", at=make.NOW, retry=make.NOW + 10, later="ImagePullBackOff",
        later_message="Back-off", later_at=make.NOW + 2,
    )  # fmt: skip
    for now, reason in ((1, "ErrImagePull"), (2, "ImagePullBackOff")):
        view = make.view(make.pod(), make.record(), now=now, memory={"app": ContainerMemory(image_failure=failure)})
        assert made(view)["containerStatuses"][0]["state"]["waiting"]["reason"] == reason


def test_crash_loop_back_off_keeps_the_last_end(make):
    record = make.record(make.container("app", "exited", exit_code=2, attempt=4))
    memory = {"app": ContainerMemory(restart=RestartBackoff(80.0, make.NOW - 1))}
    (found,) = made(make.view(make.pod(), record, now=1, memory=memory))["containerStatuses"]
    assert found["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert found["state"]["waiting"]["message"] == "back-off 1m20s restarting failed container=app pod=web_default(u1)"
    assert found["lastState"]["terminated"]["exitCode"] == 2
    assert found["restartCount"] == 4


def test_a_container_that_ended_for_good_is_terminated(make):
    record = make.record(make.container("app", "exited", exit_code=0))
    (found,) = made(make.view(make.pod(policy="OnFailure"), record))["containerStatuses"]
    assert found["state"]["terminated"]["reason"] == "Completed"
    assert found["lastState"] == {}


def test_last_words_come_before_the_runtimes_message(make):
    record = make.record(make.container("app", "exited", exit_code=1, message="runtime"))
    view = make.view(make.pod(policy="Never"), record)
    assert made(view)["containerStatuses"][0]["state"]["terminated"]["message"] == "runtime"
    view = make.view(make.pod(policy="Never"), record, messages={"app-0": "own"})
    assert made(view)["containerStatuses"][0]["state"]["terminated"]["message"] == "own"


def test_readiness_needs_start_probe_and_hook(make):
    record = make.record(make.container())
    for health, busy, ready in (
        (Health(), (), True),
        (Health(ready=False), (), False),
        (Health(started=False), (), False),
        (Health(), ("start:app",), False),
    ):
        view = make.view(make.pod(), record, health={"app-0": health}, busy=frozenset(busy))
        found = made(view)
        assert found["containerStatuses"][0]["ready"] is ready
        assert (condition(found, "Ready")["status"] == "True") is ready


def test_readiness_gates_are_waited_for(make):
    pod = make.pod(readinessGates=[{"conditionType": "example.com/ok"}])
    found = made(make.view(pod, make.record(make.container())))
    assert condition(found, "ContainersReady")["status"] == "True"
    assert condition(found, "Ready")["reason"] == "ReadinessGatesNotReady"
    foreign = {"type": "example.com/ok", "status": "True"}
    found = made(make.view(pod | {"status": {"conditions": [foreign]}}, make.record(make.container())))
    assert condition(found, "Ready")["status"] == "True"
    assert foreign in found["conditions"]


def test_a_transition_time_changes_with_the_condition_only(make):
    pod = make.pod()
    first = made(make.view(pod, make.record(make.container())))
    later = made(make.view(pod | {"status": first}, make.record(make.container()), now=60))
    assert later == first
    ended = made(make.view(pod | {"status": first}, make.record(make.container("app", "exited", exit_code=1)), now=60))
    assert condition(ended, "Ready")["lastTransitionTime"] == rfc3339(make.moment(60))
    assert condition(ended, "PodScheduled")["lastTransitionTime"] == rfc3339(make.moment(0))


def test_a_pod_on_the_hosts_network_has_the_hosts_address(make):
    found = made(make.view(make.pod(hostNetwork=True), make.record(make.container())))
    assert found["podIP"] == found["hostIP"] == "192.0.2.1"


def test_the_difference_is_a_merge_patch():
    assert difference({"a": 1, "b": 2}, {"a": 1, "c": 3}) == {"c": 3, "b": None}


def test_what_a_server_leaves_out_is_no_difference():
    old = {"conditions": [{"type": "Ready"}], "containerStatuses": [{"name": "a"}]}
    new = {
        "conditions": [{"type": "Ready", "lastProbeTime": None}],
        "containerStatuses": [{"name": "a", "lastState": {}}],
    }
    assert difference(old, new) == {}
