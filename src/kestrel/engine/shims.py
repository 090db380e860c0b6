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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kestrel.base.errors import TimedOut, Unavailable
from kestrel.engine.sessions import Attached, Exec, Session, writable
from kestrel.linux.rootfs import Rootfs
from kestrel.runtime import channel
from kestrel.runtime.messages import (
    SOCKET,
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
from kestrel.runtime.zygote import spawn

__all__ = [
    "ContainerStatus",
    "Exec",
    "ExecResult",
    "Exited",
    "LogFile",
    "OutOfMemory",
    "SandboxRequest",
    "Session",
    "Shim",
    "Zygote",
]

DRAIN = 0.5  # seconds an exec's streams may stay open after its end


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """How a process of `exec_sync` ended, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Zygote:
    """The warm process that forks shims. Its end does not touch the shims, and a new one takes its place."""

    def __init__(self, pid: int, sock: socket.socket, run_directory: str) -> None:
        self.pid = pid
        self._socket = sock
        self._run_directory = run_directory
        self._lock = asyncio.Lock()

    @classmethod
    async def start(cls, run_directory: "Path | str") -> Self:
        """Start one; `run_directory` keeps compiled seccomp filters."""
        os.makedirs(run_directory, 0o700, exist_ok=True)
        pid, sock = await asyncio.to_thread(spawn, str(run_directory))
        sock.setblocking(False)
        return cls(pid, sock, str(run_directory))

    async def shim(self, sandbox: SandboxRequest, *, lasting: bool = True) -> "Shim":
        """Make a sandbox: a shim that holds its namespaces. Raises what the shim found impossible.

        One that is not `lasting` ends, and all that runs in it, when our connection to it does.
        """
        try:
            return await self._ask(sandbox, lasting)
        except (Unavailable, OSError):
            async with self._lock:
                if not self._reap():
                    raise
                self._socket.close()
                self.pid, self._socket = await asyncio.to_thread(spawn, self._run_directory)
                self._socket.setblocking(False)
            return await self._ask(sandbox, lasting)

    async def user_namespace(self, mappings: Sequence[Mapping[str, int]]) -> int:
        """Return a descriptor of a user namespace with these mappings (the spec's form), for users and groups alike.

        Raises what the kernel had against it.
        """
        ours, theirs = channel.pair()
        with ours:
            asked = {"uid_mappings": list(mappings), "gid_mappings": list(mappings)}
            with theirs:
                async with self._lock:
                    await _send(self._socket, channel.encode({"do": "users", "with": asked}, 1), [theirs.fileno()])
            heard = await asyncio.to_thread(channel.Channel(ours).receive)
        if heard is None:
            raise Unavailable("the zygote has ended")
        answer, descriptors = heard
        if "error" in answer:
            raise error_from_json(answer["error"])
        return descriptors[0]

    async def _ask(self, sandbox: SandboxRequest, lasting: bool) -> "Shim":
        ours, theirs = channel.pair()
        try:
            data = channel.encode({"do": "shim", "with": to_json(sandbox)}, 1)
            try:
                async with self._lock:
                    await _send(self._socket, data, [theirs.fileno()])
            finally:
                theirs.close()
            return await Shim.greet(ours, Path(sandbox.directory), lasting=lasting)
        except BaseException:
            ours.close()
            raise

    def _reap(self) -> bool:
        """Say whether the process has ended."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True  # somebody was quicker

    async def close(self) -> None:
        """End it and wait until it is gone."""
        self._socket.close()
        try:
            await asyncio.to_thread(os.waitpid, self.pid, 0)
        except ChildProcessError:
            pass  # somebody was quicker


async def _send(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a frame on a non-blocking socket; the descriptors go with its first byte."""
    view = memoryview(data)
    while view:
        try:
            sent = channel.send_some(sock, view, descriptors)
        except BlockingIOError:
            await writable(sock.fileno())
            continue
        view, descriptors = view[sent:], ()


class Shim:
    """A connection to a sandbox's shim. `pid` is the shim's; `netns` is a descriptor of the network namespace."""

    def __init__(self, sock: socket.socket, directory: Path) -> None:
        self.directory = directory
        self.pid = 0
        self.netns = -1
        self._pidfd = -1
        self._socket = sock
        self._decoder = channel.Decoder()
        self._next = 1
        self._answers: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._listeners: list[asyncio.Queue[Exited | OutOfMemory | None]] = []
        self._early: list[Exited | OutOfMemory] = []
        self._ended: dict[str, Exited] = {}
        self._change = asyncio.Event()
        self._execs: dict[int, Exec] = {}
        self._exec_codes: dict[int, int] = {}
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.gone = asyncio.Event()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def greet(cls, sock: socket.socket, directory: Path, *, lasting: bool = True) -> Self:
        """Wait for the first words of a new shim, and tell one that is to go on without us that we know it."""
        shim = cls(sock, directory)
        future = shim._expect(0)
        try:
            shim._hello(*await future)
            if lasting:  # until it has heard this, a shim ends when we go: nobody else knows of it
                await _send(sock, channel.encode({"id": 0, "do": "keep"}))
        except OSError as error:
            shim._close()
            raise Unavailable("the shim ended as soon as it was made", directory=str(directory)) from error
        except BaseException:
            shim._close()
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
                    ended = Exited(
                        container_id=status.container_id,
                        exit_code=status.exit_code,
                        oom=status.oom,
                        time=status.finished,
                    )
                    shim._early.append(ended)
                    shim._ended[ended.container_id] = ended
        except BaseException:
            shim._close()
            raise
        return shim

    def _hello(self, answer: Mapping[str, Any], descriptors: list[int]) -> None:
        self.pid = answer["pid"]
        self.netns, self._pidfd = descriptors

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
        request = CreateRequest.asked(
            container_id,
            spec,
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

    async def kill(self, container_id: str, number: int = signal.SIGKILL, *, everything: bool = False) -> None:
        """Send a signal to the first process, or to every process of the container. Raises FailedPrecondition."""
        await self._ask("kill", container_id=container_id, signal=int(number), all=everything)

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
        self._ended.pop(container_id, None)

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

    async def resize(self, container_id: str, width: int, height: int) -> None:
        """Tell the container's terminal its size in characters."""
        await self._ask("resize", container_id=container_id, width=width, height=height)

    async def reopen_log(self, container_id: str) -> None:
        """Open the log's path anew, after it was renamed."""
        await self._ask("reopen_log", container_id=container_id)

    # --- streams ---

    async def attach(
        self,
        container_id: str,
        *,
        stdin: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        lossless: bool = True,
    ) -> "Session":
        """Watch a container's output from now on, and write its input.

        A session that is read slowly makes the container wait, as it would for a pipe; one that is not `lossless` is
        cut off instead once it is some megabytes behind. Closing the session never ends the container.
        """
        outputs = [name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted]
        _, descriptors = await self._ask(
            "attach", container_id=container_id, outputs=outputs, stdin=stdin, lossless=lossless
        )
        return Attached(self, container_id, socket.socket(fileno=descriptors[0]), stdin=stdin)

    async def exec(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        terminal: bool = False,
        stdin: bool = False,
        size: tuple[int, int] = (0, 0),
    ) -> "Exec":
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
        session = Exec(self, container_id, answer)
        session.take(descriptors, terminal=terminal, stdin=stdin)
        if answer["exec_id"] in self._exec_codes:
            session.exited(self._exec_codes.pop(answer["exec_id"]))
        elif self.gone.is_set():
            session.lost()
        else:
            self._execs[answer["exec_id"]] = session
        return session

    async def kill_exec(self, exec_id: int, number: int) -> None:
        """Send a signal to a process that `exec` started, and to its group. One that has ended is fine."""
        await self._ask("exec_kill", exec_id=exec_id, signal=number)

    async def exec_sync(
        self,
        container_id: str,
        process: Mapping[str, Any],
        *,
        timeout: "float | None" = None,
        limit: int = 16 * 1024 * 1024,
    ) -> "ExecResult":
        """Run a process to its end; each stream is cut at `limit` bytes (CVE-2022-31030: output without end).

        Raises TimedOut after `timeout` seconds; the process and its group are killed then.
        """
        session = await self.exec(container_id, process)
        kept = {1: bytearray(), 2: bytearray()}
        try:
            async with asyncio.timeout(timeout or None):
                # Its end counts, not that of its streams: a child it left behind may hold them for ever.
                reading = asyncio.create_task(_collect(session, kept, limit))
                try:
                    code = await session.wait()
                    await asyncio.wait([reading], timeout=DRAIN)
                finally:
                    reading.cancel()
        except TimeoutError:
            words = " ".join(process.get("args", ()))
            raise TimedOut(f"command {words!r} timed out after {timeout:g} s") from None
        finally:
            await session.close()
        return ExecResult(exit_code=code, stdout=bytes(kept[1]), stderr=bytes(kept[2]))

    async def wait(self, container_id: str) -> Exited:
        """Return a container's end, waiting for it. Raises Unavailable when the shim goes away first."""
        while container_id not in self._ended:
            if self.gone.is_set():
                raise Unavailable("the shim is gone", directory=str(self.directory))
            self._change.clear()
            await self._change.wait()
        return self._ended[container_id]

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
            self.end()
        problems: list[str] = answer["problems"]
        return problems

    def end(self) -> None:
        """Close the connection, and let nothing of the shim and its containers go on.

        A connection can be lost while the shim lives; then nobody else would end it.
        """
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, 0)  # the keeper lives, so the number is still its own
                os.killpg(self.pid, signal.SIGKILL)  # and with it the shim, and whoever is only about to be an init
            except ProcessLookupError:
                pass
        self._close()

    async def close(self) -> None:
        """Close the connection; the shim and its containers go on."""
        self._close()

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for fd in {self.netns, self._pidfd} - {-1}:
            os.close(fd)
        self.netns = self._pidfd = -1
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
        event: Exited | OutOfMemory
        if name == "exited":
            event = from_json(Exited, message)
            self._ended[event.container_id] = event
            self._change.set()
        else:
            event = from_json(OutOfMemory, message)
        if not self._listeners:
            self._early.append(event)
        for queue in self._listeners:
            queue.put_nowait(event)

    def _lost(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        self._change.set()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(Unavailable("the shim is gone", directory=str(self.directory)))
        for session in self._execs.values():
            session.lost()
        for queue in self._listeners:
            queue.put_nowait(None)


async def _collect(session: "Session", kept: Mapping[int, bytearray], limit: int) -> None:
    """Read to the end and keep the beginning: a program that writes for ever costs time, not memory."""
    while (chunk := await session.read()) is not None:
        number, data = chunk
        kept[number] += data[: max(0, limit - len(kept[number]))]
