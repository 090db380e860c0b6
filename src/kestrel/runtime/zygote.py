"""The zygote: warm, small, with one thread; it forks and does nothing else.

The daemon must not fork: it is large and has threads. So it starts this process once, by posix_spawn, and asks it
over a socket. Everything a shim or a container's init will need is imported here, once; garbage collection is frozen
so that the pages stay shared (`gc.freeze`). It ends when the daemon does; shims are in sessions of their own and stay.

There always is one fork that waits: the keeper of the next sandbox, and its shim, which makes namespaces meanwhile and
takes the request itself. So a sandbox does not wait for a fork, and no page of the zygote is written to for its sake;
each one would be copied to all the keepers.

The interpreter that runs here, and therefore in every container's init until exec, is not the host's file but the
same file seen through a detached, read-only overlay mount: /proc/self/exe of an init, opened for writing by a
container, ends in "read-only file system" (CVE-2019-5736). The process is not dumpable, nor are its forks.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time

from kestrel.base.errors import InvalidArgument
from kestrel.linux import abi, direct, sealed, seccomp, signals, sockets, syscalls, user_namespaces
from kestrel.runtime import channel, keeper, users
from kestrel.runtime.messages import SandboxRequest, error_to_json, from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from kestrel.linux.user_namespaces import Spare

# Behind the standard library: nothing that is installed beside us may stand in for a part of it.
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from kestrel.runtime.zygote import main; main(sys.argv[2:])"


SPARE = abi.CLONE_NEWNET | abi.CLONE_NEWIPC | abi.CLONE_NEWUTS
TAKEN, CLOSED = b"t", b"c"  # what the zygote hears of the one that waits: it has a request, or there will be none
AGAIN = 0.05  # seconds until the next try when no process can be made


def spawn(run_directory: str, *, environment: Mapping[str, str] | None = None) -> tuple[int, sockets.Socket]:
    """Start a zygote; return its pid and the socket it listens to. Closing the socket ends it.

    `run_directory` holds what is cached (compiled seccomp filters). Called by the daemon; forks nothing itself.
    """
    # One message, one reader: whoever waits for the next request must not take a part of the one after it.
    ours, theirs = sockets.pair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -I -S: nothing of the environment, no site packages; the arguments say all. -X utf8: whatever the locale is.
    arguments = [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROGRAM, source, "3", run_directory]
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    actions: list[tuple[int, ...]] = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, null, 1),
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
    ]
    program = sealed.interpreter()
    try:
        pid = os.posix_spawn(
            f"/proc/self/fd/{program}" if program >= 0 else sys.executable,
            arguments,
            dict(environment or {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}),
            file_actions=actions,
            setsigmask=(),
            setsigdef=[signals.SIGPIPE, signals.SIGCHLD, signals.SIGINT, signals.SIGTERM, signals.SIGHUP],
        )
    finally:
        theirs.close()
        os.close(null)
        if program >= 0:
            os.close(program)
    return pid, ours


def main(arguments: list[str]) -> NoReturn:
    """Have requests served on the descriptor `arguments[0]` until it closes; `arguments[1]` is the run directory."""
    sock = sockets.Socket(fileno=int(arguments[0]))
    os.set_inheritable(sock.fileno(), False)
    cache = f"{arguments[1]}/seccomp"
    _warm_up()
    os.setsid()
    os.chdir("/")
    syscalls.set_process_name("kestrel-zygote")
    syscalls.prctl(abi.PR_SET_DUMPABLE, 0)
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # the kernel reaps the keepers that end before us
    _compile_ahead(cache)
    while True:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            if direct.fork() == 0:
                os.close(reader)
                _keep(sock, writer, cache)
        except OSError:
            pass  # no process can be made now; the request waits until one can
        os.close(writer)
        word = os.read(reader, 1)
        os.close(reader)
        if word == CLOSED:
            os._exit(0)
        if word != TAKEN:
            time.sleep(AGAIN)  # it has died


def _keep(sock: sockets.Socket, writer: int, cache: str) -> NoReturn:
    """Be the next keeper, whose first fork takes the next request."""
    from kestrel.runtime import shim

    def work(line: keeper.Line) -> NoReturn:
        written = line.go_on()
        if written:
            shim.go_on(line, written, cache)
        _serve(line, *_next(sock, writer), cache)

    try:
        keeper.main(work)
    finally:
        os._exit(1)


def _next(sock: sockets.Socket, writer: int) -> tuple[channel.Message, sockets.Socket, Spare | None]:
    """Wait for a request; return it with the connection of the one who asks, and the namespaces made meanwhile."""
    daemon = channel.Channel(sock)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    spare = None if poll.poll(0) else _spare()
    received = daemon.receive()
    os.write(writer, TAKEN if received is not None else CLOSED)
    if received is None:
        os._exit(keeper.ENDS)
    daemon.close()
    os.close(writer)
    message, descriptors = received
    return message, sockets.Socket(fileno=descriptors[0]), spare


def _spare() -> Spare | None:
    """Make the namespaces that a sandbox with users of its own will take; None where that is not possible.

    Making them takes longer than all else about such a sandbox, so it is done while nobody waits.
    """
    try:
        return user_namespaces.born(SPARE)
    except OSError:
        return None  # whoever needs them makes them, and says what is wrong


def _warm_up() -> None:
    """Import what shims need, and take it out of the collector's sight."""
    from kestrel.linux.cgroups import v1, v2  # noqa: F401 - imported for the forks
    from kestrel.runtime import shim  # noqa: F401

    gc.collect()
    gc.freeze()


def _compile_ahead(cache: str) -> None:
    """Compile the default seccomp profile in a child while nobody waits for it."""
    if os.fork():
        return
    from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES
    from kestrel.oci.runtime_seccomp import seccomp_for

    code = 1
    try:
        seccomp.program(dict(seccomp_for(DEFAULT_CAPABILITIES)), cache)
        code = 0
    except (OSError, ValueError):
        pass  # no libseccomp: the first container that wants the profile says so
    finally:
        os._exit(code)


def _serve(
    line: keeper.Line, message: channel.Message, client: sockets.Socket, spare: Spare | None, cache: str
) -> NoReturn:
    """Do what is asked, as a fork that is there for nothing else."""
    from kestrel.runtime import shim

    try:
        if message.get("do") == "users":
            asked = message["with"]
            _hand_out(users.ranges(asked["uid_mappings"], asked["gid_mappings"], "users"), client)
            os._exit(keeper.ENDS)
        if message.get("do") != "shim":
            raise InvalidArgument(f"unknown request {message.get('do')!r}")
        request = from_json(SandboxRequest, message["with"])
    except Exception as error:  # noqa: BLE001 - the one who asked is told
        channel.Channel(client).offer({"id": 0, "error": error_to_json(error)})
        os._exit(keeper.ENDS)
    shim.begin(line, request, client, spare, cache)


def _hand_out(ids: users.Ids, client: sockets.Socket) -> None:
    """Send a descriptor of a new user namespace: the daemon, with its threads, cannot make one."""
    namespace = ids.make()
    try:
        channel.Channel(client).send({"id": 0, "ok": {}}, [namespace])
    finally:
        os.close(namespace)
