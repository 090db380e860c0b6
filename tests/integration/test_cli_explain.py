"""`kestrel explain`: what a container is made of, in words that come from the plan."""

import pytest

from kestrel.testing.kubectl import IMAGE, PROGRAM, Kubectl, container, pod, shell

pytestmark = pytest.mark.root


def said(answer, topic):
    return [line["text"] for line in answer.json() if line["topic"] == topic]


def test_a_running_container_is_explained_down_to_its_devices(platform):
    platform(
        "run", "-d", "--name", "told", "-m", "64m", "--cap-drop", "all", "--tmpfs", "/scratch", "box", "sleep", "60"
    )
    answer = platform("explain", "told", "--json")
    steps = said(answer, "steps")
    assert steps[0] == "new namespaces: mount, pid, cgroup"
    assert any(step.startswith("mount tmpfs at /scratch") for step in steps)
    assert "hide /proc/kcore" in steps
    assert steps[-1] == "run sleep 60 as user 0:0 in /"
    assert said(answer, "capabilities") == ["0 of 41: none"]
    assert said(answer, "limits") == ["67.1MB of memory; who wants more is killed"]
    assert "on the bridge" in said(answer, "network")[0]


def test_explaining_a_running_container_does_not_disturb_it(platform):
    platform("run", "-d", "--name", "calm", "box", "sleep", "60")
    platform("explain", "calm")
    assert platform("exec", "calm", "sh", "-c", "echo x >> /etc/passwd && tail -1 /etc/passwd").out == "x\n"


def test_an_ended_container_is_explained_as_it_would_run_again(platform):
    platform("run", "--name", "past", "--network", "none", "--user", "alice", "box", "true")
    shown = platform("explain", "past").out
    assert "its own, with nothing in it but loopback" in shown
    assert "run true as user 1000:1000 in /" in shown


def test_privileges_are_said_aloud(platform):
    platform("run", "-d", "--name", "mighty", "--privileged", "--network", "host", "box", "sleep", "60")
    answer = platform("explain", "mighty", "--json")
    assert said(answer, "seccomp") == ["off: every system call is allowed"]
    assert said(answer, "capabilities")[0].startswith("41 of 41: ")
    assert "the host's own" in said(answer, "network")[0]


def test_whose_users_it_has_is_said_with_the_reason(platform):
    platform("run", "-d", "--name", "own", "box", "sleep", "60")
    first = platform.inspect("own")["first_id"]
    answer = platform("explain", "own", "--json")
    assert said(answer, "users") == [f"its own: users 0 to 65535 are {first} and on on the host, who may do nothing"]
    assert f"enter a user namespace: users 0 to 65535 are {first} and on on the host" in said(answer, "steps")
    assert said(answer, "namespaces") == ["of its sandbox: network, IPC, host name"]
    for flags, reason in (
        (["--userns", "host"], "they were asked for"),
        (["--privileged"], "it is privileged"),
        (["--cap-add", "SYS_TIME"], "SYS_TIME is a right over the host"),
        (["--pid", "host"], "it has the host's processes"),
        (["-v", "/proc:/host"], "/proc, or something mounted in it, cannot be id-mapped"),
    ):
        assert said(platform("explain", "--json", *flags, "box"), "users") == [f"the host's: {reason}"]


def test_what_would_be_run_is_explained_before_and_nothing_is_made_for_it(platform):
    before = platform("ps", "-a", "--json").json()
    flags = ("-m", "64m", "-v", "unmade:/data", "-u", "alice", "--device", "/dev/null:/dev/nothing")
    answer = platform("explain", "--json", *flags, "box", "cat", "/etc/passwd")
    steps = said(answer, "steps")
    assert "bind a new volume unmade at /data" in " ".join(steps)
    assert steps[-1] == "run cat /etc/passwd as user 1000:1000 in /"
    assert said(answer, "limits") == ["67.1MB of memory; who wants more is killed"]
    assert said(answer, "devices")[0].endswith("terminals, /dev/nothing")
    rights = said(answer, "capabilities")
    assert rights[0].startswith("none for user 1000; setuid programs may have up to 14 of 41: chown, ")
    held = platform("explain", "--json", "-u", "alice", "--security-opt", "no-new-privileges", "box")
    assert said(held, "capabilities")[0] == "none for user 1000"
    assert platform("ps", "-a", "--json").json() == before
    assert not (platform.root / "volumes" / "unmade").exists()
    assert "an address on the bridge, when it runs" in platform("explain", "box").out
    assert "no such container, pod or image: nothing" in platform("explain", "nothing", code=1).err
    assert "unknown capability" in platform("explain", "--cap-add", "NOPE", "box", code=2).err


def test_every_container_of_a_pod_is_explained(platform):
    if PROGRAM is None:
        pytest.skip("kubectl is not installed")
    platform("tag", "box", IMAGE)
    kube = Kubectl.of(platform)
    kube.apply(pod("told", shell("sleep 1000"), container("other", securityContext={"privileged": True})))
    try:
        kube.running("told")
        found = platform("explain", "pod/told", "--json").json()
        assert list(found) == ["default/told main", "default/told other"]
        users = [next(line["text"] for line in lines if line["topic"] == "users") for lines in found.values()]
        assert users[0].startswith("its own: ")
        assert users[1] == "the host's: it is privileged"
        assert platform("explain", "default/told").out.startswith("default/told main\n")
    finally:
        kube("delete", "pod", "told", "--now")
