"""Probes: single questions over real sockets, and how answers add up."""

import asyncio

import pytest

from kestrel.kube.kubelet import probes
from kestrel.kube.kubelet.backoff import RestartBackoff, doubling
from kestrel.kube.kubelet.images import policy
from kestrel.kube.kubelet.prober import Count, verdict
from kestrel.kube.kubelet.probes import Subject
from kestrel.testing.pod_runtime import MemoryRuntime


@pytest.fixture
async def server():
    """Serve one canned answer; `asked` collects the requests."""
    asked = []
    answer = {"bytes": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}

    async def serve(reader, writer):
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer["bytes"] is None:
                await reader.read()  # until the client has had enough
            else:
                writer.write(answer["bytes"])
        except asyncio.IncompleteReadError:
            pass  # a TCP probe only connects
        finally:
            writer.close()
            await writer.wait_closed()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    running.port = running.sockets[0].getsockname()[1]
    running.asked, running.answer = asked, answer
    yield running
    running.close()
    await running.wait_closed()
    await asyncio.sleep(0.02)


def subject(port):
    container = {"name": "app", "ports": [{"name": "web", "containerPort": port}]}
    return Subject(id="c", container=container, address="127.0.0.1")


async def ask(handler, port=0, timeout=1.0):
    return await probes.ask(MemoryRuntime(), handler, subject(port), timeout=timeout)


@pytest.mark.parametrize(("status", "good"), [(200, True), (302, True), (399, True), (404, False), (500, False)])
async def test_http_statuses_from_200_to_399_are_good(server, status, good):
    server.answer["bytes"] = f"HTTP/1.1 {status} X\r\n\r\n".encode()
    found = await ask(
        {"httpGet": {"path": "healthz", "port": "web", "httpHeaders": [{"name": "X-A", "value": "1"}]}}, server.port
    )
    assert found.good is good
    assert server.asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-A: 1\r\n" in server.asked[0]
    if not good:
        assert found.text == f"HTTP probe failed with statuscode: {status}"


async def test_a_header_cannot_smuggle_in_another(server):
    await ask({"httpGet": {"port": server.port, "httpHeaders": [{"name": "A", "value": "1\r\nB: 2"}]}})
    assert b"\r\nB: 2" not in server.asked[0]


async def test_a_probe_that_is_too_slow_is_bad(server):
    server.answer["bytes"] = None
    found = await ask({"httpGet": {"port": server.port}}, timeout=0.05)
    assert not found.good
    assert "timed out after 0.05s" in found.text


async def test_tcp_is_good_when_somebody_listens(server):
    assert (await ask({"tcpSocket": {"port": server.port}})).good
    server.close()
    await server.wait_closed()
    refused = await ask({"tcpSocket": {"port": server.port}})
    assert refused.text == f"dial tcp 127.0.0.1:{server.port}: connection refused"


async def test_an_unknown_port_name_and_grpc_are_said():
    assert (await ask({"httpGet": {"port": "nope"}})).text == "container app has no port named nope"
    assert "gRPC probes are not supported" in (await ask({"grpc": {"port": 1}})).text


def test_a_verdict_changes_after_enough_answers_in_a_row():
    probe = {"failureThreshold": 3, "successThreshold": 2}
    count = Count(good=True)
    seen = []
    for answer in (False, False, True, False, False, False, True, True):
        count = verdict(count, answer, probe)
        seen.append(count.good)
    assert seen == [True, True, True, True, True, False, False, True]


def test_the_restart_back_off_doubles_to_five_minutes_and_forgets_after_ten():
    state, now, delays = RestartBackoff(), 1000.0, []
    for _ in range(8):
        delays.append(state.due(now) - now)
        started = state.due(now)
        state = state.restarted(now, started)
        now = started + 1
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert state.due(now + 601) == now + 601


def test_doubling_has_an_end():
    assert [doubling(n) for n in (1, 2, 3, 6, 7, 1000)] == [10, 20, 40, 300, 300, 300]


@pytest.mark.parametrize(
    ("image", "given", "wanted"),
    [
        ("busybox", None, "Always"),
        ("busybox:latest", None, "Always"),
        ("busybox:1.36", None, "IfNotPresent"),
        ("localhost:5000/busybox", None, "Always"),
        ("localhost:5000/busybox:1", None, "IfNotPresent"),
        ("busybox@sha256:" + "a" * 64, None, "IfNotPresent"),
        ("busybox", "Never", "Never"),
    ],
)
def test_the_pull_policy_follows_the_tag(image, given, wanted):
    assert policy({"image": image} | ({"imagePullPolicy": given} if given else {})) == wanted
