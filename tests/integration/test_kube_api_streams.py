"""The real kubectl, old and new, streams through the API server to a node that runs local processes."""

import asyncio
import os
import pty
import re
import shutil
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import aiohttp
import pytest

from kestrel.base.errors import InvalidArgument, NotFound
from kestrel.kube.apiserver.backends import STDERR, STDOUT, JSONObject, LogOptions, Session, StreamOptions
from kestrel.testing.apiserver import TOKEN, Cluster, running

KUBECTL = shutil.which("kubectl")
BUILDS = Path(os.path.realpath(KUBECTL or "/")).parent
OLD_AND_NEW = [
    str(BUILDS / f"kubectl.1.{minor}") for minor in range(27, 34) if (BUILDS / f"kubectl.1.{minor}").exists()
]

pytestmark = [pytest.mark.clients, pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")]


class ProcessSession:
    """A local process with pipes or a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None) -> None:
        self._process = process
        self._master = master
        self._output: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._collect())]

    @classmethod
    async def spawn(cls, options: StreamOptions) -> "ProcessSession":
        master = slave = None
        pipe = asyncio.subprocess.PIPE
        if options.tty:
            master, slave = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *options.command,
                stdin=slave if slave is not None else pipe if options.stdin else asyncio.subprocess.DEVNULL,
                stdout=slave if slave is not None else pipe,
                stderr=slave if slave is not None else pipe,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise InvalidArgument(f"executable file not found: {options.command[0]}") from None
        finally:
            if slave is not None:
                os.close(slave)
        return cls(process, master)

    async def _collect(self) -> None:
        if self._master is not None:
            with suppress(OSError):
                while data := await asyncio.to_thread(os.read, self._master, 4096):
                    self._output.put_nowait((STDOUT, data))
        else:
            await asyncio.gather(self._pipe(STDOUT, self._process.stdout), self._pipe(STDERR, self._process.stderr))
        self._output.put_nowait(None)

    async def _pipe(self, channel: int, reader: asyncio.StreamReader | None) -> None:
        assert reader is not None
        while data := await reader.read(65536):
            self._output.put_nowait((channel, data))

    async def read(self) -> tuple[int, bytes] | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self._master is not None:
            os.write(self._master, data)
        elif self._process.stdin is not None:
            with suppress(ConnectionError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, width: int, height: int) -> None:
        if self._master is not None:
            ioctl(self._master, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await asyncio.gather(*self._tasks)
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._master is not None:
            os.close(self._master)
            self._master = None


class LocalNode:
    """A node whose containers are this machine: what a NodeBackend has to do, with real processes and sockets."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.ports: dict[int, int] = {}
        self.sessions = 0
        self.followers = 0

    async def logs(self, pod: JSONObject, options: LogOptions) -> AsyncIterator[bytes]:
        assert pod["kind"] == "Pod"
        if options.previous:
            raise InvalidArgument(f'previous terminated container "{options.container}" not found')
        lines = self.log.read_bytes().splitlines(keepends=True)
        if options.tail_lines is not None:
            lines = lines[len(lines) - options.tail_lines :]
        return self._follow(lines, follow=options.follow)

    async def _follow(self, lines: list[bytes], *, follow: bool) -> AsyncIterator[bytes]:
        for line in lines:
            yield line
        size = self.log.stat().st_size
        self.followers += follow
        try:
            while follow:
                data = self.log.read_bytes()[size:]
                if data:
                    yield data
                size += len(data)
                if data.endswith(b"end\n"):
                    return
                await asyncio.sleep(0.02)
        finally:
            self.followers -= follow

    async def exec(self, pod: JSONObject, options: StreamOptions) -> Session:
        assert pod["kind"] == "Pod"
        self.sessions += 1
        return await ProcessSession.spawn(options)

    async def attach(self, pod: JSONObject, options: StreamOptions) -> Session:
        assert pod["kind"] == "Pod"
        command = StreamOptions(container=options.container, command=("cat",), stdin=options.stdin, tty=options.tty)
        return await ProcessSession.spawn(command)

    async def port_forward(self, pod: JSONObject, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert pod["kind"] == "Pod"
        if port not in self.ports:
            raise NotFound(f"nothing listens on port {port}")
        return await asyncio.open_connection("127.0.0.1", self.ports[port])


POD = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": "node", "containers": [{"name": "main", "image": "none"}]},
}


@pytest.fixture
async def node(tmp_path):
    log = tmp_path / "container.log"
    log.write_bytes(b"one\ntwo\nthree\n")
    return LocalNode(log)


@pytest.fixture
async def cluster(tmp_path, node):
    async with running(tmp_path, backend=node) as made:
        await made.client.create("pods", POD)
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "main",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "image": "none",
                    "imageID": "",
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
            ],
        }
        await made.client.patch_status("pods", "web", status, "default")
        yield made


@pytest.mark.parametrize("kubectl", OLD_AND_NEW, ids=os.path.basename)
async def test_exec_carries_output_errors_input_and_exit_code(cluster: Cluster, kubectl: str) -> None:
    script = "echo out; echo err >&2; cat; exit 7"
    found = await cluster.run("exec", "-i", "web", "--", "sh", "-c", script, program=kubectl, stdin="from stdin\n")
    assert found.code == 7
    assert found.out == "out\nfrom stdin\n"
    assert "err\n" in found.err
    assert "command terminated with exit code 7" in found.err


async def test_exec_ends_with_success(cluster: Cluster) -> None:
    found = await cluster.run("exec", "web", "--", "true")
    assert (found.code, found.out) == (0, "")


async def test_exec_carries_much_data_both_ways_unchanged(cluster: Cluster) -> None:
    text = "".join(f"{number:09}\n" for number in range(300_000))
    for program in ("kubectl", OLD_AND_NEW[0]):
        found = await cluster.run("exec", "-i", "web", "--", "cat", stdin=text, program=program)
        assert found.code == 0
        assert found.out == text


async def test_exec_of_a_missing_program_says_so_after_one_attempt(cluster: Cluster, node: LocalNode) -> None:
    for count, program in enumerate(("kubectl", OLD_AND_NEW[0]), 1):
        found = await cluster.run("exec", "web", "--", "/no/such/program", program=program)
        assert found.code == 1
        assert "executable file not found: /no/such/program" in found.err
        assert node.sessions == count


async def test_exec_into_an_unknown_container_names_it(cluster: Cluster) -> None:
    found = await cluster.run("exec", "web", "-c", "other", "--", "true")
    assert found.code == 1
    assert "container other is not valid for pod web" in found.err or "container not found" in found.err


async def test_attach_reaches_the_process(cluster: Cluster) -> None:
    for program in ("kubectl", OLD_AND_NEW[0]):
        found = await cluster.run("attach", "-i", "web", stdin="hello\n", program=program)
        assert "hello\n" in found.out


async def test_cp_copies_a_directory_both_ways(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file.bin").write_bytes(os.urandom(400_000))
    found = await cluster.run("cp", str(source), f"web:{tmp_path}/copied")
    assert found.code == 0, found.err
    assert (tmp_path / "copied" / "file.bin").read_bytes() == (source / "file.bin").read_bytes()
    found = await cluster.run("cp", f"web:{tmp_path}/copied", str(tmp_path / "back"))
    assert found.code == 0, found.err
    assert (tmp_path / "back" / "file.bin").read_bytes() == (source / "file.bin").read_bytes()


async def test_logs_are_tailed_limited_and_followed(cluster: Cluster, node: LocalNode) -> None:
    assert (await cluster.run("logs", "web")).out == "one\ntwo\nthree\n"
    assert (await cluster.run("logs", "web", "--tail=1")).out == "three\n"
    assert (await cluster.run("logs", "web", "--limit-bytes=5")).out == "one\nt"
    process = await cluster.start("logs", "-f", "web")
    assert process.stdout is not None
    assert await process.stdout.readexactly(14) == b"one\ntwo\nthree\n"
    with node.log.open("ab") as log:
        log.write(b"end\n")
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"end\n", b"")


async def test_a_follower_that_leaves_is_let_go_at_once(cluster: Cluster, node: LocalNode) -> None:
    process = await cluster.start("logs", "-f", "web")
    assert process.stdout is not None
    await process.stdout.readexactly(14)
    assert node.followers == 1
    process.kill()
    await process.communicate()
    for _ in range(200):
        if node.followers == 0:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the log is still followed")


async def test_logs_of_a_previous_container_that_never_was(cluster: Cluster) -> None:
    found = await cluster.run("logs", "-p", "web")
    assert found.code == 1
    assert 'previous terminated container "main" not found' in found.err


@pytest.mark.parametrize("kubectl", [OLD_AND_NEW[0], OLD_AND_NEW[-1]], ids=os.path.basename)
async def test_port_forward_serves_several_connections(cluster: Cluster, node: LocalNode, kubectl: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.read()
        writer.write(b"got " + received)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    node.ports[80] = server.sockets[0].getsockname()[1]
    process = await cluster.start("port-forward", "pod/web", ":80", program=kubectl)
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        port = int(line.split("127.0.0.1:")[1].split(" ")[0])
        answers = await asyncio.gather(*(_talk(port, str(n).encode() * 50_000) for n in range(5)))
        assert answers == [b"got " + str(n).encode() * 50_000 for n in range(5)]
    finally:
        process.terminate()
        await process.communicate()
        server.close()
        await server.wait_closed()


async def _talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_port_forward_to_a_closed_port_reports_it(cluster: Cluster) -> None:
    process = await cluster.start("port-forward", "pod/web", ":81")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        port = int(line.split("127.0.0.1:")[1].split(" ")[0])
        assert await _talk(port, b"x") == b""
        assert b"nothing listens on port 81" in await asyncio.wait_for(process.stderr.readline(), 30)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_other_clients_exec_with_each_subprotocol(cluster: Cluster, protocol: str) -> None:
    """The Python clients speak WebSocket channels directly."""
    from kestrel.http.channels import Channels

    channels = Channels(protocol)
    path = "/api/v1/namespaces/default/pods/web/exec?command=echo&command=hi&stdout=1"
    got: dict[int, bytes] = {}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.ws_connect(
            cluster.address + path, ssl=cluster.authority.client_context(), protocols=(protocol,)
        ) as socket,
    ):
        assert socket.protocol == protocol
        async for message in socket:
            frame = channels.decode(message.data)
            got[frame.channel] = got.get(frame.channel, b"") + getattr(frame, "data", b"")
    assert got[1] == b"hi\n"
    assert b'"status":"Success"' in got[3]


async def test_a_terminal_is_resized_and_its_process_ends_with_the_client(cluster: Cluster) -> None:
    path = "/api/v1/namespaces/default/pods/web/exec?command=sh&stdin=1&stdout=1&tty=1"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.ws_connect(
            cluster.address + path, ssl=cluster.authority.client_context(), protocols=("v5.channel.k8s.io",)
        ) as socket,
    ):
        await socket.send_bytes(b'\x04{"Width":91,"Height":33}')
        await socket.send_bytes(b"\x00stty size; echo pid=$$\n")
        text = b""
        while (found := re.search(rb"pid=(\d+)\r", text)) is None:
            text += (await socket.receive_bytes(timeout=10))[1:]
    assert b"33 91" in text
    pid = int(found[1])
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the shell outlived its client")
