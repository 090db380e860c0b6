"""The daemon's half of the conversation with the runtime, for asyncio: the zygote, the shims, and their sessions.

    zygote = await Zygote.start(run_directory)
    shim = await zygote.shim(SandboxRequest(id=..., directory=..., ...))     a sandbox's namespaces are held now
    pid = await shim.create("web", spec, rootfs, log=LogFile(path=...), cgroup="kestrel/box/web")
    await shim.start("web")
    async for event in shim.events(): ...                                    Exited, OutOfMemory; ends with the shim

After a restart `Shim.connect(directory)` finds a shim again. Errors of the runtime arrive as the KestrelErrors they
were raised as; `error.context["exit_code"]` says 126 or 127 where a program could not be started. A shim that goes
away in the middle of a request raises Unavailable.
"""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from kestrel.base.errors import KestrelError, TimedOut, Unavailable
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import channel, exits
from kestrel.runtime.messages import (
    ContainerStatus,
    CreateRequest,
    ExecRequest,
    Exited,
    LogFile,
    OutOfMemory,
    SandboxRequest,
    error_from_json,
    from_json,
    to_json,
)
from kestrel.runtime.shim import SOCKET
from kestrel.runtime.zygote import spawn

__all__ = [
    "ContainerStatus",
    "ExecSession",
    "Exited",
    "LogFile",
    "OutOfMemory",
    "Output",
    "SandboxRequest",
    "Session",
    "Shim",
    "Zygote",
    "exits_of",
]

FRAME = struct.Struct("!BI")
STREAMS = {1: "stdout", 2: "stderr"}


def exits_of(directory: "Path | str") -> list[Exited]:
    """Return the ends that the shim of a sandbox recorded, also when it is dead. Reads files; short."""
    return exits.everyone(directory)


class Zygote:
    """The warm process that forks shims. Its end does not touch the shims."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self._socket = sock

    @classmethod
    async def start(cls, run_directory: "Path | str") -> Self:
        """Start one; `run_directory` keeps compiled seccomp filters."""
        os.makedirs(run_directory, 0o700, exist_ok=True)
        pid, sock = await asyncio.to_thread(spawn, str(run_directory))
        sock.setblocking(False)
        return cls(pid, sock)

    async def shim(self, sandbox: SandboxRequest) -> "Shim":
        """Make a sandbox: a shim that holds its namespaces. Raises what the shim found impossible."""
        ours, theirs = channel.pair()
        try:
            data = channel.encode({"do": "shim", "with": to_json(sandbox)}, 1)
            try:
                await _send(self._socket, data, [theirs.fileno()])
            except OSError as error:
                raise Unavailable("the zygote has ended", hint="restart the daemon") from error
            finally:
                theirs.close()
            return await Shim.greet(ours, Path(sandbox.directory))
        except BaseException:
            ours.close()
            raise

    async def close(self) -> None:
        """End it and wait until it is gone."""
        self._socket.close()
        try:
            await asyncio.to_thread(os.waitpid, self.pid, 0)
        except ChildProcessError:
            pass  # the event loop's child watcher was quicker


async def _send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a frame on a non-blocking socket; the descriptors go with its first byte."""
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            sent = channel.send_some(sock, view, descriptors)
        except BlockingIOError:
            writable = loop.create_future()
            loop.add_writer(sock.fileno(), lambda done=writable: done.done() or done.set_result(None))
            try:
                await writable
            finally:
                loop.remove_writer(sock.fileno())
            continue
        view, descriptors = view[sent:], ()


class Shim:
    """A connection to a sandbox's shim. `pid` is the shim's; `netns` is a descriptor of the network namespace."""

    def __init__(self, sock: socket.socket, directory: Path) -> None:
        self.directory = directory
        self.pid = 0
        self.netns = -1
        self._socket = sock
        self._decoder = channel.Decoder()
        self._next = 1
        self._answers: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._listeners: list[asyncio.Queue[Exited | OutOfMemory | None]] = []
        self._early: list[Exited | OutOfMemory] = []
        self._execs: dict[int, ExecSession] = {}
        self._exec_codes: dict[int, int] = {}
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.gone = asyncio.Event()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def greet(cls, sock: socket.socket, directory: Path) -> Self:
        """Wait for the first words of a new shim."""
        shim = cls(sock, directory)
        future = shim._expect(0)
        try:
            shim._hello(*await future)
        except BaseException:
            shim.close()
            raise
        return shim

    @classmethod
    async def connect(cls, directory: "Path | str") -> Self:
        """Find the shim of a sandbox again. Raises Unavailable when it is dead.

        `events()` then first tells of every container that has ended and was not deleted, so nothing that happened
        meanwhile is missed.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Through a descriptor of the directory: a path may be longer than sun_path (`man 7 unix`).
            folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
            finally:
                os.close(folder)
        except OSError as error:
            sock.close()
            raise Unavailable(f"the shim in {directory} is not running", cause=str(error)) from error
        shim = cls(sock, Path(directory))
        try:
            shim._hello(*await shim._ask("hello"))
            for status in await shim.states():
                if status.exit_code is not None:
                    shim._early.append(
                        Exited(
                            container_id=status.container_id,
                            exit_code=status.exit_code,
                            oom=status.oom,
                            moment=status.finished,
                        )
                    )
        except BaseException:
            shim.close()
            raise
        return shim

    def _hello(self, answer: Mapping[str, Any], descriptors: list[int]) -> None:
        self.pid = answer["pid"]
        self.netns = descriptors[0]

    # --- containers ---

    async def create(
        self,
        container_id: str,
        spec: dict[str, Any],
        rootfs: "Rootfs | None",
        *,
        log: "LogFile | None" = None,
        terminal: bool = False,
        stdin: bool = False,
        stdin_once: bool = False,
        cgroup: str = "",
        size: tuple[int, int] = (0, 0),
        warn: "Callable[[str], None] | None" = None,
    ) -> int:
        """Make a container ready, up to the exec of its program, and return its process id on the host.

        Without `rootfs` the spec's `root.path` is the root. `size` is the terminal's (width, height). `warn` is told
        what this machine withheld, a sentence each. On failure nothing is left.
        """
        request = CreateRequest(
            container_id=container_id,
            spec=spec,
            rootfs=rootfs.to_json() if rootfs is not None else None,
            log=to_json(log) if log is not None else None,
            terminal=terminal,
            stdin=stdin,
            stdin_once=stdin_once,
            cgroup=cgroup,
            width=size[0],
            height=size[1],
        )
        answer, _ = await self._ask("create", **to_json(request))
        for warning in answer.get("warnings", ()) if warn is not None else ():
            warn(warning)  # type: ignore[misc] # the loop is empty when it is None
        pid: int = answer["pid"]
        return pid

    async def start(self, container_id: str) -> None:
        """Run its program. On failure the container is stopped with the error's `exit_code`, and no event is sent."""
        await self._ask("start", container_id=container_id)

    async def kill(self, container_id: str, number: int = signal.SIGKILL, *, all: bool = False) -> None:  # noqa: A002
        """Send a signal to the first process, or with `all` to every process of the container."""
        await self._ask("kill", container_id=container_id, signal=int(number), all=all)

    async def pause(self, container_id: str) -> None:
        """Stop all processes where they are."""
        await self._ask("pause", container_id=container_id)

    async def resume(self, container_id: str) -> None:
        """Let paused processes go on."""
        await self._ask("resume", container_id=container_id)

    async def delete(self, container_id: str, *, force: bool = False) -> None:
        """Let the shim forget a stopped container: its cgroup and exit file go. With `force` kill it first.

        Deleting one that was created but never started kills it. With `force` an unknown container is fine.
        """
        await self._ask("delete", container_id=container_id, force=force)

    async def states(self) -> list[ContainerStatus]:
        """Return the state of every container that was not deleted."""
        answer, _ = await self._ask("states")
        return [from_json(ContainerStatus, entry) for entry in answer["states"]]

    async def update(self, container_id: str, resources: Mapping[str, Any]) -> None:
        """Change limits; `resources` is the runtime-spec's `linux.resources`."""
        await self._ask("update", container_id=container_id, resources=dict(resources))

    async def stats(self, container_id: str) -> dict[str, "int | None"]:
        """Return the fields of `linux.cgroups.Stats`; empty when the container has no cgroup."""
        answer, _ = await self._ask("stats", container_id=container_id)
        return answer

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """Tell the container's terminal its size in characters."""
        await self._ask("resize", container_id=container_id, height=height, width=width)

    async def reopen_log(self, container_id: str) -> None:
        """Open the log's path anew, after it was renamed."""
        await self._ask("reopen_log", container_id=container_id)

    # --- streams ---

    async def attach(
        self, container_id: str, *, stdout: bool = True, stderr: bool = True, lossless: bool = False
    ) -> "Session":
        """Watch a container's output from now on and write its input.

        One who reads too slowly is cut off, unless `lossless`: then the container waits, as it would for a pipe.
        """
        outputs = [name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted]
        _, descriptors = await self._ask("attach", container_id=container_id, outputs=outputs, lossless=lossless)
        sock = socket.socket(fileno=descriptors[0])
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return Session(
            Output.framed(reader, stdout=stdout, stderr=stderr),
            writer,
            lambda height, width: self.resize(container_id, height, width),
        )

    async def exec(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        terminal: bool = False,
        stdin: bool = False,
        size: tuple[int, int] = (0, 0),
    ) -> "ExecSession":
        """Run another process in a running container; `process` is the spec's form, at least with `args`.

        What it leaves out (user, cwd, env, capabilities, ...) is as for the container's own process. `size` is the
        terminal's (width, height). Returns when the program runs; raises when it could not be executed.
        """
        request = ExecRequest(
            container_id=container_id,
            process=dict(process),
            terminal=terminal,
            stdin=stdin,
            width=size[0],
            height=size[1],
        )
        answer, descriptors = await self._ask("exec", **to_json(request))
        session = await ExecSession.open(self, answer, descriptors, terminal=terminal, stdin=stdin)
        if answer["exec_id"] in self._exec_codes:
            session.exited(self._exec_codes.pop(answer["exec_id"]))
        elif self.gone.is_set():
            session.lost()
        else:
            self._execs[answer["exec_id"]] = session
        return session

    async def exec_sync(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        timeout: "float | None" = None,
        limit: int = 16 * 1024 * 1024,
    ) -> tuple[int, bytes, bytes]:
        """Run a process to its end and return (exit code, stdout, stderr), each cut at `limit` bytes.

        Raises TimedOut after `timeout` seconds; the process and its group are killed then.
        """
        session = await self.exec(container_id, process)
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr, code = await asyncio.gather(
                    _bounded(session.stdout, limit), _bounded(session.stderr, limit), session.wait()
                )
            return code, stdout, stderr
        except TimeoutError:
            words = " ".join(process.get("args", ()))
            raise TimedOut(f"command {words!r} timed out after {timeout:g} s") from None
        finally:
            await session.close()

    async def dial(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a TCP port of the sandbox from inside it. Raises Unavailable when nothing listens."""
        _, descriptors = await self._ask("dial", port=port)
        return await asyncio.open_connection(sock=socket.socket(fileno=descriptors[0]))

    # --- events and the end ---

    async def events(self) -> AsyncIterator["Exited | OutOfMemory"]:
        """Yield what happens to the containers, at least once each; end when the shim is gone.

        What happened before the first call is told first.
        """
        queue: asyncio.Queue[Exited | OutOfMemory | None] = asyncio.Queue()
        for event in self._early:
            queue.put_nowait(event)
        self._early.clear()
        if self.gone.is_set():
            queue.put_nowait(None)
        self._listeners.append(queue)
        try:
            while (event_or_end := await queue.get()) is not None:
                yield event_or_end
        finally:
            self._listeners.remove(queue)

    async def shutdown(self) -> list[str]:
        """Kill everything, remove the sandbox's cgroup, end the shim. Returns what could not be removed, in words."""
        try:
            answer, _ = await self._ask("shutdown")
        except Unavailable:
            return []
        finally:
            self.close()
        problems: list[str] = answer["problems"]
        return problems

    def close(self) -> None:
        """Close the connection; the shim and its containers go on."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1
        self._decoder.close()
        self._lost()

    # --- the wire ---

    def _expect(self, identifier: int) -> "asyncio.Future[tuple[dict[str, Any], list[int]]]":
        future: asyncio.Future[tuple[dict[str, Any], list[int]]] = self._loop.create_future()
        self._answers[identifier] = future
        return future

    async def _ask(self, operation: str, **given: Any) -> tuple[dict[str, Any], list[int]]:
        if self.gone.is_set():
            raise Unavailable("the shim is gone", directory=str(self.directory))
        identifier = self._next
        self._next += 1
        future = self._expect(identifier)
        try:
            data = channel.encode({"id": identifier, "do": operation, "with": given})
            async with self._sending:
                await _send(self._socket, data)
            return await future
        except OSError as error:
            raise Unavailable("the shim is gone", directory=str(self.directory)) from error
        finally:
            self._answers.pop(identifier, None)

    def _readable(self) -> None:
        try:
            data, descriptors = channel.receive(self._socket)
            messages = self._decoder.feed(data, descriptors)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, messages = b"", []
        for message, given in messages:
            self._heard(message, given)
        if not data:
            self._loop.remove_reader(self._socket.fileno())
            self._lost()

    def _heard(self, message: Mapping[str, Any], descriptors: list[int]) -> None:
        if "event" in message:
            self._happened(dict(message))
            return
        future = self._answers.get(message["id"])
        if future is None or future.done():
            for fd in descriptors:
                os.close(fd)  # whoever asked was cancelled
        elif "error" in message:
            future.set_exception(error_from_json(message["error"]))
        else:
            future.set_result((message["ok"], descriptors))

    def _happened(self, message: dict[str, Any]) -> None:
        name = message.pop("event")
        if name == "exec_exited":
            session = self._execs.pop(message["exec_id"], None)
            if session is not None:
                session.exited(message["exit_code"])
            else:
                self._exec_codes[message["exec_id"]] = message["exit_code"]
            return
        event = from_json(Exited, message) if name == "exited" else from_json(OutOfMemory, message)
        if not self._listeners:
            self._early.append(event)
        for queue in self._listeners:
            queue.put_nowait(event)

    def _lost(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Unavailable("the shim is gone", directory=str(self.directory)))
        for session in self._execs.values():
            session.lost()
        for queue in self._listeners:
            queue.put_nowait(None)


async def _bounded(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Read to the end, keep the first `limit` bytes: a program that writes for ever costs us nothing but time."""
    kept = bytearray()
    while data := await reader.read(65536):
        if len(kept) < limit:
            kept += data[: limit - len(kept)]
    return bytes(kept)


class Output:
    """What a program writes: `stdout` and `stderr` to read apart, or `both()` in the order of arrival.

    Read either way, not both. A stream that was not asked for, and stderr of a terminal, is at its end at once.
    """

    def __init__(self, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def framed(cls, reader: asyncio.StreamReader, *, stdout: bool, stderr: bool) -> Self:
        """Take an attacher's frames apart."""
        readers = {1: asyncio.StreamReader(), 2: asyncio.StreamReader()}
        output = cls(readers[1], readers[2])
        gate = _Gate()
        for number, wanted in ((1, stdout), (2, stderr)):
            if wanted:
                readers[number].set_transport(_Valve(gate, number))  # type: ignore[arg-type] # only pauses and resumes
            else:
                readers[number].feed_eof()
        output._tasks.append(asyncio.create_task(_take_apart(reader, readers, gate)))
        return output

    async def both(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield (stream, bytes) as they come, until both streams have ended."""
        queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(4)

        async def pump(name: str, reader: asyncio.StreamReader) -> None:
            while data := await reader.read(65536):
                await queue.put((name, data))
            await queue.put((name, b""))

        pumps = [asyncio.create_task(pump(*pair)) for pair in (("stdout", self.stdout), ("stderr", self.stderr))]
        open_streams = len(pumps)
        try:
            while open_streams:
                name, data = await queue.get()
                if data:
                    yield name, data
                else:
                    open_streams -= 1
        finally:
            await _cancel(pumps)

    async def close(self) -> None:
        """Stop reading."""
        await _cancel(self._tasks)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Gate:
    """Open while nobody has asked for a pause."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.paused: set[int] = set()


class _Valve:
    """What a StreamReader takes for its transport: it pauses us when its reader falls behind."""

    def __init__(self, gate: _Gate, number: int) -> None:
        self._gate = gate
        self._number = number

    def pause_reading(self) -> None:
        """The reader has enough."""
        self._gate.paused.add(self._number)
        self._gate.open.clear()

    def resume_reading(self) -> None:
        """The reader has caught up."""
        self._gate.paused.discard(self._number)
        if not self._gate.paused:
            self._gate.open.set()


async def _take_apart(source: asyncio.StreamReader, readers: Mapping[int, asyncio.StreamReader], gate: _Gate) -> None:
    try:
        while True:
            await gate.open.wait()
            number, length = FRAME.unpack(await source.readexactly(FRAME.size))
            readers[number].feed_data(await source.readexactly(length))
    except (asyncio.IncompleteReadError, OSError):
        pass
    finally:
        for reader in readers.values():
            reader.feed_eof()


class Session:
    """A person's or a client's connection to a program: its output, its input, the size of its terminal."""

    def __init__(
        self, output: Output, writer: "asyncio.StreamWriter | None", resize: "Callable[[int, int], Any]"
    ) -> None:
        self.output = output
        self._writer = writer
        self._resize = resize

    @property
    def stdout(self) -> asyncio.StreamReader:
        """The program's output."""
        return self.output.stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        """The program's errors; at its end at once when there is a terminal."""
        return self.output.stderr

    async def write(self, data: bytes) -> None:
        """Write to the program's input; bytes for one that has none, or has ended, are dropped."""
        if self._writer is None or self._writer.is_closing():
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            await self.close_stdin()

    async def close_stdin(self) -> None:
        """End the program's input; its output goes on."""
        if self._writer is None or self._writer.is_closing():
            return
        if self._writer.can_write_eof():
            self._writer.write_eof()
        else:
            self._writer.close()

    async def resize(self, height: int, width: int) -> None:
        """Tell the terminal its size in characters."""
        await self._resize(height, width)

    async def close(self) -> None:
        """Let go; the program goes on."""
        await self.output.close()
        await _close_writer(self._writer)


async def _close_writer(writer: "asyncio.StreamWriter | None") -> None:
    if writer is None:
        return
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


class ExecSession(Session):
    """The session of an exec: it also has an end of its own. Leaving it unfinished kills it (`close`)."""

    def __init__(self, output: Output, writer: "asyncio.StreamWriter | None", shim: Shim, answer: Mapping[str, Any]):
        super().__init__(output, writer, self._resize_master)
        self.pid: int = answer["pid"]
        self._shim = shim
        self._identifier: int = answer["exec_id"]
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._master = -1
        self._transports: list[asyncio.ReadTransport] = []

    @classmethod
    async def open(
        cls, shim: Shim, answer: Mapping[str, Any], descriptors: list[int], *, terminal: bool, stdin: bool
    ) -> Self:
        """Wrap the descriptors of a process that runs: its terminal's master, or [stdin,] stdout, stderr."""
        if terminal:
            writer_fd, readers = os.dup(descriptors[0]), [descriptors[0]]
        elif stdin:
            writer_fd, readers = descriptors[0], descriptors[1:]
        else:
            writer_fd, readers = -1, descriptors
        opened = [await _pipe_reader(fd) for fd in readers]
        if terminal:
            ended = asyncio.StreamReader()
            ended.feed_eof()
            opened.append((ended, None))
        writer = await _pipe_writer(writer_fd) if writer_fd >= 0 else None
        session = cls(Output(opened[0][0], opened[1][0]), writer, shim, answer)
        session._transports = [transport for _, transport in opened if transport is not None]
        session._master = writer_fd if terminal else -1
        return session

    async def _resize_master(self, height: int, width: int) -> None:
        import fcntl
        import termios

        if self._master >= 0 and self._writer is not None and not self._writer.is_closing():
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        """Return the exit code, 128 + signal when a signal ended it. Raises Unavailable when the shim is gone."""
        return await asyncio.shield(self._code)

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process and its group."""
        await self._shim._ask("exec_kill", exec_id=self._identifier, signal=int(number))

    def exited(self, code: int) -> None:
        """The shim says that it has ended."""
        if not self._code.done():
            self._code.set_result(code)

    def lost(self) -> None:
        """The shim is gone, and with it the process."""
        if not self._code.done():
            self._code.set_exception(Unavailable("the shim is gone", directory=str(self._shim.directory)))
            self._code.exception()  # nobody has to ask

    async def close(self) -> None:
        """Close its streams, and kill it if it still runs."""
        if not self._code.done():
            try:
                await self.kill()
            except KestrelError:
                pass
        for transport in self._transports:
            transport.close()
        await super().close()


class _Reading(asyncio.StreamReaderProtocol):
    """A reader to which the error of a terminal that everybody left (EIO) is its end."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._own = reader

    def connection_lost(self, exc: "Exception | None") -> None:
        """Treat any error as the end."""
        self._own.feed_eof()
        super().connection_lost(None)


async def _pipe_reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: _Reading(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader, transport


async def _pipe_writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", buffering=0))
    return asyncio.StreamWriter(transport, protocol, None, loop)
