"""What the kubelet decides to do: tables of pods and what there is of them."""

import pytest

from kestrel.base.clock import rfc3339
from kestrel.kube.kubelet.backoff import Failure, RestartBackoff
from kestrel.kube.kubelet.sync import (
    ContainerMemory,
    EnsureImage,
    Finalize,
    Health,
    MountVolumes,
    Outcome,
    Remove,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    plan,
)


def actions(view) -> set:
    return set(plan(view).actions)


def test_a_new_pod_gets_sandbox_volumes_and_images_all_at_once(make):
    view = make.view(make.pod("a", "b"), volumes_ready=False)
    assert actions(view) == {RunSandbox(0), MountVolumes(), EnsureImage("a"), EnsureImage("b")}


def test_what_is_under_way_is_not_begun_again(make):
    view = make.view(make.pod("a"), volumes_ready=False, busy=frozenset({"sandbox", "volumes", "image:a"}))
    assert actions(view) == set()


def test_a_container_starts_when_sandbox_volumes_and_image_are_there(make):
    ready = make.view(make.pod("app"), make.record(), images=("app",))
    assert actions(ready) == {StartContainer("app", 0, "s0", make.IMAGE)}
    waiting = make.view(make.pod("app"), make.record(), images=("app",), volumes_ready=False)
    assert actions(waiting) == {MountVolumes()}
    assert actions(make.view(make.pod("app"), images=("app",))) == {RunSandbox(0)}


def test_a_running_pod_needs_nothing(make):
    decided = plan(make.view(make.pod("app"), make.record(make.container())))
    assert decided.actions == ()
    assert decided.wake_at is None


def test_init_containers_run_one_after_the_other(make):
    pod = make.pod("app", inits=("i1", "i2"))
    assert actions(make.view(pod, make.record())) == {EnsureImage("i1")}
    first_runs = make.record(make.container("i1"))
    assert actions(make.view(pod, first_runs)) == set()
    first_done = make.record(make.container("i1", "exited"))
    assert actions(make.view(pod, first_done, images=("i2",))) == {StartContainer("i2", 0, "s0", make.IMAGE)}
    both = make.record(make.container("i1", "exited"), make.container("i2", "exited"))
    assert actions(make.view(pod, both, images=("app",))) == {StartContainer("app", 0, "s0", make.IMAGE)}


def test_init_containers_do_not_run_again_while_their_sandbox_lives(make):
    pod = make.pod("app", inits=("i1",))
    there = make.record(make.container("i1", "exited"), make.container("app", "exited", exit_code=1))
    assert actions(make.view(pod, there, images=("app", "i1"))) == {StartContainer("app", 1, "s0", make.IMAGE)}


def test_init_containers_run_again_in_a_new_sandbox(make):
    pod = make.pod("app", inits=("i1",))
    there = make.record(
        make.container("i1", "exited"),
        make.container("app", "exited", exit_code=137),
        sandboxes=(make.sandbox(1), make.sandbox(0, ready=False)),
    )
    assert actions(make.view(pod, there, images=("app", "i1"))) == {StartContainer("i1", 1, "s1", make.IMAGE)}


def test_a_failed_init_container_is_tried_again_unless_never(make):
    there = make.record(make.container("i1", "exited", exit_code=1))
    again = make.view(make.pod(inits=("i1",), policy="OnFailure"), there, images=("i1",))
    assert actions(again) == {StartContainer("i1", 1, "s0", make.IMAGE)}
    never = make.view(make.pod(inits=("i1",), policy="Never"), there, images=("i1",))
    assert actions(never) == {StopSandbox("s0")}


def test_a_sidecar_lets_the_next_go_on_only_when_it_has_started(make):
    pod = make.pod("app", inits=("+side",))
    up = make.record(make.container("side"))
    probing = make.view(pod, up, images=("app",), health={"side-0": Health(started=False)})
    assert actions(probing) == set()
    hooked = make.view(pod, up, images=("app",), busy=frozenset({"start:side"}))
    assert actions(hooked) == set()
    assert actions(make.view(pod, up, images=("app",))) == {StartContainer("app", 0, "s0", make.IMAGE)}


def test_a_sidecar_that_ends_is_restarted_even_in_a_pod_that_never_restarts(make):
    pod = make.pod("app", inits=("+side",), policy="Never")
    there = make.record(make.container("side", "exited"), make.container("app"))
    assert actions(make.view(pod, there, images=("side",))) == {StartContainer("side", 1, "s0", make.IMAGE)}


def test_sidecars_end_after_the_app_containers_the_last_first(make):
    pod = make.pod("app", inits=("+one", "+two"), policy="Never")
    done = make.record(make.container("one"), make.container("two"), make.container("app", "exited"))
    (stop,) = plan(make.view(pod, done)).actions
    assert stop.container == "two"
    (stop,) = plan(make.view(pod, make.record(make.container("one"), make.container("app", "exited")))).actions
    assert stop.container == "one"


@pytest.mark.parametrize(
    ("policy", "exit_code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_the_restart_policy_decides(make, policy, exit_code, again):
    there = make.record(make.container("app", "exited", exit_code=exit_code))
    found = actions(make.view(make.pod(policy=policy), there, images=("app",)))
    assert found == ({StartContainer("app", 1, "s0", make.IMAGE)} if again else {StopSandbox("s0")})


def test_a_restart_waits_for_its_back_off_and_says_when_to_look_again(make):
    there = make.record(make.container("app", "exited", exit_code=1, ended=0))
    memory = {"app": ContainerMemory(image=make.IMAGE, restart=RestartBackoff(20.0, make.NOW - 5))}
    decided = plan(make.view(make.pod(), there, now=19, memory=memory))
    assert decided.actions == ()
    assert decided.wake_at == make.NOW + 20
    assert actions(make.view(make.pod(), there, now=20, memory=memory)) == {StartContainer("app", 1, "s0", make.IMAGE)}


def test_a_failed_pull_is_tried_again_only_when_it_is_due(make):
    failure = Failure(
        reason="ErrImagePull", message="x", at=make.NOW, retry=make.NOW + 10, later="B", later_at=make.NOW + 2
    )
    memory = {"app": ContainerMemory(image_failure=failure)}
    decided = plan(make.view(make.pod(), make.record(), memory=memory, now=1))
    assert decided.actions == ()
    assert decided.wake_at == make.NOW + 2
    assert actions(make.view(make.pod(), make.record(), memory=memory, now=10)) == {EnsureImage("app")}


def test_a_failed_sandbox_is_tried_again_only_when_it_is_due(make):
    failure = Failure(reason="x", message="x", at=make.NOW, retry=make.NOW + 10)
    decided = plan(make.view(make.pod(), images=("app",), sandbox_failure=failure))
    assert decided.actions == ()
    assert decided.wake_at == make.NOW + 10


def test_a_container_that_was_created_and_never_started_is_made_again(make):
    there = make.record(make.container("app", "created"))
    assert actions(make.view(make.pod(), there, images=("app",))) == {Remove("app-0")}


def test_a_failed_liveness_probe_stops_the_container_with_its_own_grace(make):
    health = {"app-0": Health(failed="liveness", grace=3.0)}
    (stop,) = plan(make.view(make.pod(), make.record(make.container()), health=health)).actions
    assert stop == StopContainer("app-0", "app", make.NOW + 3, "failed liveness probe, will be restarted")


def test_old_attempts_are_removed_but_the_last_two(make):
    old = [make.container("app", "exited", attempt=n, exit_code=1) for n in range(3)]
    there = make.record(make.container("app", attempt=3), *old)
    assert actions(make.view(make.pod(), there)) == {Remove("app-1"), Remove("app-0")}


def test_an_ended_sandbox_goes_when_its_last_container_has_gone(make):
    old = make.sandbox(0, ready=False)
    there = make.record(make.container("app", attempt=1, sandbox="s1"), sandboxes=(make.sandbox(1), old))
    assert actions(make.view(make.pod(), there)) == {Remove("s0", "sandbox")}
    kept = make.container("app", "exited", attempt=0, sandbox="s0")
    there = make.record(make.container("app", attempt=1, sandbox="s1"), kept, sandboxes=(make.sandbox(1), old))
    assert actions(make.view(make.pod(), there)) == set()


def deleted(make, seconds: int):
    metadata = {"deletionTimestamp": rfc3339(make.moment(seconds)), "deletionGracePeriodSeconds": seconds}
    return make.pod("a", "b", metadata=metadata)


def test_a_deleted_pod_is_stopped_together_then_finalized(make):
    pod = deleted(make, 30)
    running = make.record(make.container("a"), make.container("b"))
    stops = plan(make.view(pod, running)).actions
    assert {stop.container for stop in stops} == {"a", "b"}
    assert {stop.deadline for stop in stops} == {make.NOW + 31}
    ended = make.record(make.container("a", "exited"), make.container("b", "exited"))
    assert actions(make.view(pod, ended)) == {Finalize()}
    assert actions(make.view(pod, make.record())) == {Finalize()}


def test_a_deleted_pod_waits_for_what_is_under_way(make):
    view = make.view(deleted(make, 30), make.record(), busy=frozenset({"start:a"}))
    assert actions(view) == set()


def test_a_deleted_pods_stop_is_repeated_so_that_it_can_be_hastened(make):
    view = make.view(deleted(make, 5), make.record(make.container("a")), busy=frozenset({"stop:a-0"}))
    assert actions(view) == {StopContainer("a-0", "a", make.NOW + 6)}


def test_a_pod_that_is_gone_from_the_api_is_killed_at_once(make):
    (stop,) = plan(make.view(make.pod(), make.record(make.container()), gone=True)).actions
    assert stop == StopContainer("app-0", "app", make.NOW)


def test_the_active_deadline_fails_the_pod(make):
    status = {"startTime": rfc3339(make.moment(-10))}
    pod = make.pod(activeDeadlineSeconds=20, status=status, terminationGracePeriodSeconds=3)
    early = plan(make.view(pod, make.record(make.container())))
    assert early.wake_at == make.NOW + 10
    late = plan(make.view(pod, make.record(make.container()), now=10))
    assert late.outcome is not None
    assert late.outcome.reason == "DeadlineExceeded"
    assert late.actions == (StopContainer("app-0", "app", make.NOW + 13),)


def test_a_pod_that_has_ended_is_never_started_again(make):
    pod = make.pod(status={"phase": "Succeeded"})
    assert actions(make.view(pod)) == set()


def test_a_killed_shim_means_a_new_sandbox_when_containers_are_restarted(make):
    there = make.record(
        make.container("app", "exited", exit_code=137, reason="ShimKilled"),
        sandboxes=(make.sandbox(ready=False, reason="the shim was killed"),),
    )
    assert actions(make.view(make.pod(), there, images=("app",))) == {RunSandbox(1)}


def test_a_sandbox_whose_shim_was_killed_is_not_used_while_it_is_cleared_away(make):
    there = make.record(make.container("app", "exited", exit_code=137, reason="ShimKilled"))
    assert actions(make.view(make.pod(), there, images=("app",))) == {RunSandbox(1)}


def test_a_killed_shim_ends_a_pod_that_is_never_restarted(make):
    dead = (make.sandbox(ready=False, reason="the shim was killed"),)
    pod = make.pod(policy="Never", inits=("i1",))
    between = make.record(make.container("i1", "exited"), sandboxes=dead)
    decided = plan(make.view(pod, between))
    assert decided.actions == ()
    assert decided.outcome is not None
    assert decided.outcome.message == "the pod's sandbox is gone: the shim was killed"


def test_a_debug_container_is_started_once_beside_what_runs(make):
    pod = make.pod("app", ephemeralContainers=[{"name": "look", "image": "busybox"}])
    app = make.container("app")
    assert actions(make.view(pod, make.record(app), images=("look",))) == {StartContainer("look", 0, "s0", make.IMAGE)}
    assert actions(make.view(pod, make.record(app, make.container("look")))) == set()
    assert actions(make.view(pod, make.record(app, make.container("look", "exited", exit_code=1)))) == set()


def test_a_debug_container_does_not_keep_a_finished_pod_alive(make):
    pod = make.pod("app", policy="Never", ephemeralContainers=[{"name": "look", "image": "busybox"}])
    record = make.record(make.container("app", "exited"), make.container("look"))
    [stop] = actions(make.view(pod, record))
    assert isinstance(stop, StopContainer)
    assert stop.container == "look"


def test_a_pod_that_a_new_daemon_finds_running_gets_its_volumes_looked_after(make):
    view = make.view(make.pod("app"), make.record(make.container()), volumes_ready=False)
    assert actions(view) == {MountVolumes()}


def test_an_evicted_pod_is_ended_at_once_and_failed(make):
    evicted = Outcome(phase="Failed", reason="Evicted", message="too full")
    pod = make.pod("app", terminationGracePeriodSeconds=600)
    decided = plan(make.view(pod, make.record(make.container()), evicted=evicted))
    [stop] = decided.actions
    assert isinstance(stop, StopContainer)
    assert stop.deadline == make.NOW + 1
    assert decided.outcome == evicted
