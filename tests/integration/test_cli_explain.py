"""`kestrel explain`: what a container is made of, in words that come from the plan."""

import pytest

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
