"""The shim: one per sandbox. It holds the sandbox's namespaces, and its containers' processes, output and ends.

It is a fork of its keeper (`keeper.py`), whose children its containers are, and which it leaves everything to when
nothing happens. The daemon talks to it over a socket in the sandbox's directory and may die and come back at any
moment; the shim writes the logs and the exit files, so nothing is lost meanwhile. Its containers die with it.

The sandbox's namespaces are its own, so a port of the sandbox is dialled by just connecting.
"""

from __future__ import annotations

import errno
import os
import sys

from kestrel.base import plainjson
from kestrel.base.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    KestrelError,
    NotFound,
    Unavailable,
)
from kestrel.base.values import asdict
from kestrel.linux import cgroups, signals, sockets, syscalls, user_namespaces
from kestrel.linux.mounts import opened
from kestrel.runtime import channel, keeper, loop, sandbox, state
from kestrel.runtime.connection import Connection, Listener
from kestrel.runtime.container import Container, Surroundings
from kestrel.runtime.execs import Exec
from kestrel.runtime.journal import note
from kestrel.runtime.messages import (
    SOCKET,
    CreateRequest,
    ExecRequest,
    Exited,
    OutOfMemory,
    SandboxRequest,
    error_to_json,
    from_json,
    to_json,
)
from kestrel.runtime.users import Ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from kestrel.linux.user_namespaces import Spare

LOG = "shim.log"


def begin(
    line: keeper.Line, request: SandboxRequest, client: sockets.Socket, spare: Spare | None, cache: str
) -> NoReturn:
    """Be the shim of a new sandbox; `client` is the first connection, `spare` has namespaces for it."""
    try:
        _open_log(request.directory)
        Shim(request, cache, line).begin(client, spare)
    except BaseException as error:  # noqa: BLE001 - the daemon is told, whatever it was
        client.setblocking(True)
        channel.Channel(client).offer({"id": 0, "error": error_to_json(explained(error))})
        if not isinstance(error, KestrelError | OSError):
            _note(error)
    os._exit(keeper.ENDS)


def go_on(line: keeper.Line, written: str, cache: str) -> NoReturn:
    """Be the shim of a sandbox after another one, which has rested."""
    try:
        given = plainjson.loads(written)
        Shim(from_json(SandboxRequest, given["request"]), cache, line).go_on(given)
    except BaseException as error:  # noqa: BLE001 - there is nobody else to tell
        _note(error)
    os._exit(keeper.ENDS)


def _note(error: BaseException) -> None:
    sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.flush()


def _open_log(directory: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(os.open(f"{directory}/{LOG}", flags, 0o600)) as log:
        os.dup2(log, 2)


def explained(error: BaseException) -> BaseException:
    """Return an OSError as an error of ours."""
    if isinstance(error, OSError) and not isinstance(error, KestrelError):
        place = f": {error.filename}" if error.filename else ""
        return FailedPrecondition(f"{error.strerror}{place}")
    return error


class Shim:
    """The sandbox's containers and the clients that ask about them."""

    def __init__(self, request: SandboxRequest, cache: str, line: keeper.Line) -> None:
        syscalls.set_process_name("kestrel-shim")
        self._request = request
        self._cache = cache
        self._line = line
        self._loop = loop.Loop()
        self._hierarchy = _hierarchy()
        self._containers: dict[str, Container] = {}
        self._execs: dict[int, Exec] = {}
        self._next_exec = 1
        self._unclaimed: dict[int, int] = {}  # pid -> wait status, while some exec's pid is not known yet
        self._clients: list[Connection] = []
        self._user_namespaces: dict[Ids, int] = {}
        self._kept = False
        self._loop.when_idle(request.rest_after, self._rest)
        self._loop.watch(line.reader, loop.READ, self._reap)
        self._namespaces: list[int] = []
        self._pause: sandbox.Pause | None = None
        self._operations: dict[str, Callable[[Connection, Any, dict[str, Any]], None]] = {
            "hello": self._hello,
            "keep": self._keep,
            "create": self._create,
            "start": self._start,
            "kill": self._kill,
            "pause": self._freeze,
            "resume": self._freeze,
            "delete": self._delete,
            "states": self._states,
            "exec": self._exec,
            "exec_kill": self._exec_kill,
            "attach": self._attach,
            "resize": self._resize,
            "reopen_log": self._reopen_log,
            "dial": self._dial,
            "update": self._update,
            "stats": self._stats,
            "shutdown": self._shutdown,
        }

    # --- a sandbox begins, rests, and goes on ---

    def begin(self, client: sockets.Socket, spare: Spare | None) -> None:
        """Make the sandbox, and serve until it is shut down or rests."""
        request = self._request
        oom_score = sandbox.avoid_oom_killer(self._line.keeper)
        self._user_namespaces = sandbox.make_namespaces(request, spare)
        self._namespaces = sandbox.hold_namespaces()
        self._pause = sandbox.Pause.begin() if request.share_pid else None
        self._serve(oom_score)
        self._accepted(client)
        self._hello(self._clients[0], 0, {})
        if spare is not None:
            user_namespaces.end(spare)
        self._loop.run()

    def _serve(self, oom_score: int, listening: int = -1) -> None:
        directory = self._request.directory
        self._listener = Listener(self._loop, directory, SOCKET, self._accepted, listening)
        self._around = Surroundings(
            events=self._loop,
            hierarchy=self._hierarchy,
            directory=directory,
            cache=self._cache,
            namespaces=sandbox.owned(self._request),
            pid_namespace=self._pause.namespace if self._pause is not None else -1,
            oom_score=oom_score,
            exited=lambda exited: self._tell("exited", exited),
            out_of_memory=lambda event: self._tell("oom", event),
            user_namespace=self._user_namespace,
        )

    def _rest(self) -> None:
        """Leave everything to the next shim, unless something is under way that only this one knows of."""
        containers, clients = self._containers.values(), self._clients
        at_rest = {self._line.reader, self._listener.fileno()}
        at_rest.update(*(c.at_rest() for c in containers), *(c.at_rest() for c in clients))
        # Orphans of a sandbox without processes of its own come to the keeper, which does not reap in its sleep.
        if self._request.host_pid or self._execs or not self._loop.watched <= at_rest:
            return
        for container in containers:
            container.watch_end()
        written = {
            "request": to_json(self._request),
            "kept": self._kept,
            "next_exec": self._next_exec,
            "oom_score": self._around.oom_score,
            "namespaces": self._namespaces,
            "users": [[ids.to_json(), fd] for ids, fd in self._user_namespaces.items()],
            "pause": [self._pause.namespace, self._pause.alive] if self._pause is not None else None,
            "listener": self._listener.fileno(),
            "clients": [client.fileno() for client in clients],
            "containers": [container.write_down() for container in containers],
        }
        self._line.rest(plainjson.dumps(written), self._loop.fileno())

    def go_on(self, written: dict[str, Any]) -> None:
        """Go on where the last shim has rested: its descriptors are ours."""
        self._namespaces = written["namespaces"]
        sandbox.enter_namespaces(self._namespaces)
        self._kept, self._next_exec = written["kept"], written["next_exec"]
        self._user_namespaces = {Ids.from_json(ids): fd for ids, fd in written["users"]}
        self._pause = sandbox.Pause(*written["pause"]) if written["pause"] is not None else None
        self._serve(written["oom_score"], written["listener"])
        for fd in written["clients"]:
            self._accepted(sockets.Socket(fileno=fd))
        for given in written["containers"]:
            self._containers[given["id"]] = Container.read_up(given, self._around)
        self._loop.run()

    def _user_namespace(self, ids: Ids | None) -> int:
        """Return the user namespace of these ids, which containers of the sandbox share; -1 for none."""
        if ids is None:
            return -1
        if ids not in self._user_namespaces:
            self._user_namespaces[ids] = ids.make()
        return self._user_namespaces[ids]

    # --- clients ---

    def _accepted(self, client: sockets.Socket) -> None:
        connection = Connection(self._loop, client, self._asked, lambda: self._left(connection))
        self._clients.append(connection)

    def _left(self, client: Connection) -> None:
        """Go on without a client, unless it was the one who asked for this shim and has not said that it knows us."""
        self._clients.remove(client)
        if not self._kept and not self._clients:
            self._clean_up()
            self._listener.close()
            self._loop.stop()

    def _asked(self, client: Connection, message: channel.Message, descriptors: list[int]) -> None:
        for fd in descriptors:
            os.close(fd)  # no request carries any
        identifier, name = message.get("id"), message.get("do")
        operation = self._operations.get(str(name))
        try:
            if operation is None:
                raise InvalidArgument(f"unknown request {name!r}")
            operation(client, identifier, {**message.get("with", {}), "do": name})
        except (KestrelError, OSError) as error:
            client.fail(identifier, explained(error))
        except Exception as error:  # noqa: BLE001 - a bug in one request must not end the sandbox
            sys.excepthook(type(error), error, error.__traceback__)
            client.fail(identifier, error)

    def _tell(self, name: str, event: Exited | OutOfMemory) -> None:
        for client in list(self._clients):
            client.send({"event": name, **to_json(event)})

    def _container(self, given: dict[str, Any]) -> Container:
        container = self._containers.get(given.get("container_id", ""))
        if container is None:
            raise NotFound(f"container does not exist: {given.get('container_id')}")
        return container

    # --- requests ---

    def _hello(self, client: Connection, identifier: object, _given: dict[str, Any]) -> None:
        """Answer with who we are, and hand out the network namespace and a hold on this process."""
        pid = self._line.keeper
        with open("/proc/self/ns/net", "rb", buffering=0) as namespace, opened(os.pidfd_open(pid)) as process:
            client.answer(identifier, {"pid": pid, "id": self._request.id}, [namespace.fileno(), process])

    def _keep(self, client: Connection, identifier: object, _given: dict[str, Any]) -> None:
        """Whoever asked for this shim knows it now, and may find it again by its path."""
        self._kept = True
        client.answer(identifier)

    def _create(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        given.pop("do")
        request = from_json(CreateRequest, given)
        if request.container_id in self._containers:
            raise AlreadyExists(f"container with given ID already exists: {request.container_id}")
        if not request.container_id or set(request.container_id) - NAME_CHARACTERS or request.container_id[0] == ".":
            raise InvalidArgument(f"invalid container id {request.container_id!r}")
        name = request.container_id
        container = Container(request, self._around)

        def reply(result: dict[str, Any] | None, error: BaseException | None) -> None:
            if error is None:
                client.answer(identifier, result)
            else:
                del self._containers[name]
                client.fail(identifier, error)

        container.create(reply)
        self._containers[name] = container

    def _start(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).start(
            lambda result, error: client.answer(identifier, result) if error is None else client.fail(identifier, error)
        )

    def _kill(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).kill(given["signal"], everyone=given.get("all", False))
        client.answer(identifier)

    def _freeze(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).freeze(frozen=given["do"] == "pause")
        client.answer(identifier)

    def _delete(self, client: Connection, identifier: object, given: dict[str, Any], tries: int = 500) -> None:
        """Remove a container; one that was never started is killed first, any with `force`."""
        container = self._containers.get(given.get("container_id", ""))
        if container is None:
            if given.get("force"):
                client.answer(identifier)
                return
            container = self._container(given)
        if container.status != state.STOPPED:
            if not given.get("force"):
                state.require("delete", container.status, container.id)
            if container.status != state.CREATING:
                container.kill(signals.SIGKILL)
            if tries:
                self._loop.after(0.002, lambda: self._retry_delete(client, identifier, given, tries - 1))
                return
            raise Unavailable(f"container {container.id} does not die")
        try:
            container.release()
        except OSError as error:
            if error.errno != errno.EBUSY or not tries:
                raise
            self._loop.after(0.002, lambda: self._retry_delete(client, identifier, given, tries - 1))
            return
        self._containers.pop(container.id, None)
        client.answer(identifier)

    def _retry_delete(self, client: Connection, identifier: object, given: dict[str, Any], tries: int) -> None:
        try:
            self._delete(client, identifier, given, tries)
        except (KestrelError, OSError) as error:
            client.fail(identifier, explained(error))

    def _states(self, client: Connection, identifier: object, _given: dict[str, Any]) -> None:
        client.answer(identifier, {"states": [to_json(c.describe()) for c in self._containers.values()]})

    def _exec(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        given.pop("do")
        request = from_json(ExecRequest, given)
        container = self._container(given)
        number = self._next_exec
        self._next_exec += 1

        def reply(result: dict[str, Any] | None, error: BaseException | None, descriptors: list[int]) -> None:
            if error is not None:
                self._execs.pop(number, None)
                client.fail(identifier, error)
            else:
                client.answer(identifier, {**(result or {}), "exec_id": number}, descriptors)

        def ended(code: int) -> None:
            self._execs.pop(number, None)
            client.send({"event": "exec_exited", "exec_id": number, "exit_code": code})

        joining = Exec(self._loop, reply, ended, lambda pid: self._unclaimed.pop(pid, None))
        joining.start(container, request)
        self._execs[number] = joining

    def _exec_kill(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        joined = self._execs.get(given["exec_id"])
        if joined is not None:
            joined.kill(given["signal"])
        client.answer(identifier)

    def _attach(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        outputs = frozenset(given.get("outputs") or ("stdout", "stderr"))
        stdin, lossless = given.get("stdin", False), given.get("lossless", False)
        fd = self._container(given).attach(outputs=outputs, stdin=stdin, lossless=lossless)
        try:
            client.answer(identifier, {}, [fd])
        finally:
            os.close(fd)

    def _resize(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).resize(given["width"], given["height"])
        client.answer(identifier)

    def _reopen_log(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).reopen_log()
        client.answer(identifier)

    def _update(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        self._container(given).update(given["resources"])
        client.answer(identifier)

    def _stats(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        group = self._container(given).group
        client.answer(identifier, asdict(group.stats()) if group is not None else {})

    def _dial(self, client: Connection, identifier: object, given: dict[str, Any]) -> None:
        """Connect to a port of the sandbox's loopback, IPv4 first, and hand the connection out."""
        port = int(given["port"])
        self._try_dial(client, identifier, port, [(sockets.AF_INET, "127.0.0.1"), (sockets.AF_INET6, "::1")])

    def _try_dial(self, client: Connection, identifier: object, port: int, places: list[tuple[int, str]]) -> None:
        family, address = places[0]
        sock = sockets.Socket(family, sockets.SOCK_STREAM)
        sock.setblocking(False)

        def finish(error: int) -> None:
            if error and len(places) > 1:
                sock.close()
                self._try_dial(client, identifier, port, places[1:])
                return
            if error:
                client.fail(
                    identifier,
                    Unavailable(
                        f"connect to port {port} of the sandbox: {os.strerror(error).lower()}",
                        hint="is the program listening there, and on localhost or on all addresses?",
                    ),
                )
            else:
                client.answer(identifier, {}, [sock.fileno()])
            sock.close()

        def connected(_events: int) -> None:
            self._loop.forget(sock.fileno())
            finish(sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_ERROR))

        error = sock.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            self._loop.watch(sock.fileno(), loop.WRITE, connected)
        else:
            finish(error)

    # --- children ---

    def _reap(self, _events: int) -> None:
        for pid, status in self._line.ends():
            self._reaped(pid, status)

    def _reaped(self, pid: int, status: int) -> None:
        for container in list(self._containers.values()):
            if container.pid == pid and container.status != state.STOPPED:
                container.reaped(status)
                return
        for joined in list(self._execs.values()):
            if joined.pid == pid:
                joined.reaped(status)
                return
        # The one who joins may end before the go-between's word of it has been read.
        joining = [joined for joined in self._execs.values() if not joined.pid]
        if not joining:
            self._unclaimed.clear()
        elif all(joined.go_between != pid for joined in joining):
            self._unclaimed[pid] = status

    # --- the end ---

    def _shutdown(self, client: Connection, identifier: object, given: dict[str, Any], tries: int = 1500) -> None:
        """Kill what runs, wait for it, remove the sandbox's cgroup and end."""
        alive = [c for c in self._containers.values() if c.status != state.STOPPED]
        for container in alive:
            if container.status != state.CREATING:
                container.kill(signals.SIGKILL)
        if alive and tries:
            self._loop.after(0.002, lambda: self._shutdown(client, identifier, given, tries - 1))
            return
        problems = self._clean_up()
        self._listener.close()
        client.answer(identifier, {"problems": problems})
        self._loop.stop()

    def _clean_up(self) -> list[str]:
        problems = []
        paths = [c.group.path for c in self._containers.values() if c.group is not None]
        for path in [*paths, self._request.cgroup]:
            if path and self._hierarchy is not None:
                try:
                    cgroups.remove(path, hierarchy=self._hierarchy, timeout=0.5)
                except OSError as error:
                    problems.append(f"cgroup {path}: {error.strerror}")
        return problems


NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


def _hierarchy() -> cgroups.Hierarchy | None:
    try:
        return cgroups.detect()
    except FileNotFoundError as error:
        note(f"no cgroups: {error}")
        return None
