"""The zygote: warm, small, with one thread; it forks shims and does nothing else, but for user namespaces.

The daemon must not fork: it is large and has threads. So it starts this process once, by posix_spawn, and asks it
over a socket. Everything a shim or a container's init will need is imported here, once; garbage collection is frozen
so that the pages stay shared (`gc.freeze`). It ends when the daemon does; shims are in sessions of their own and stay.

The interpreter that runs here, and therefore in every container's init until exec, is not the host's file but the
same file seen through a detached, read-only overlay mount: /proc/self/exe of an init, opened for writing by a
container, ends in "read-only file system" (CVE-2019-5736). The process is not dumpable, nor are its forks.
"""

from __future__ import annotations

import gc
import os
import sys

from kestrel.base.errors import InvalidArgument
from kestrel.linux import abi, sealed, seccomp, signals, sockets, syscalls, user_namespaces
from kestrel.oci.runtime_defaults import DEFAULT_CAPABILITIES
from kestrel.oci.runtime_seccomp import seccomp_for
from kestrel.runtime import channel, users
from kestrel.runtime.messages import SandboxRequest, error_to_json, from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

# Behind the standard library: nothing that is installed beside us may stand in for a part of it.
PROGRAM = "import sys; sys.path.append(sys.argv[1]); from kestrel.runtime.zygote import main; main(sys.argv[2:])"


SPARE = abi.CLONE_NEWNET | abi.CLONE_NEWIPC | abi.CLONE_NEWUTS


def spawn(run_directory: str, *, environment: Mapping[str, str] | None = None) -> tuple[int, sockets.Socket]:
    """Start a zygote; return its pid and the socket it listens to. Closing the socket ends it.

    `run_directory` holds what is cached (compiled seccomp filters). Called by the daemon; forks nothing itself.
    """
    ours, theirs = channel.pair()
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
    """Serve requests on the descriptor `arguments[0]` until it closes; `arguments[1]` is the run directory."""
    sock = sockets.Socket(fileno=int(arguments[0]))
    os.set_inheritable(sock.fileno(), False)
    run_directory = arguments[1]
    _warm_up()
    os.setsid()
    os.chdir("/")
    syscalls.set_process_name("kestrel-zygote")
    syscalls.prctl(abi.PR_SET_DUMPABLE, 0)
    signals.signal(signals.SIGCHLD, signals.SIG_IGN)  # the kernel reaps the shims that end before us
    _compile_ahead(f"{run_directory}/seccomp")
    daemon = channel.Channel(sock)
    spare = _spare()
    while True:
        received = daemon.receive()
        if received is None:
            os._exit(0)
        message, descriptors = received
        if _serve(daemon, message, descriptors, f"{run_directory}/seccomp", spare):
            os.close(spare)
            spare = _spare()


def _spare() -> int:
    """Return a pidfd of a process in the namespaces that the next sandbox with users of its own will take; -1 without.

    Making them takes longer than all else about such a sandbox, so it is done while nobody waits.
    """
    try:
        return user_namespaces.born(SPARE)[1]
    except OSError:
        return -1  # whoever needs them makes them, and says what is wrong


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
    code = 1
    try:
        seccomp.program(dict(seccomp_for(DEFAULT_CAPABILITIES)), cache)
        code = 0
    except (OSError, ValueError):
        pass  # no libseccomp: the first container that wants the profile says so
    finally:
        os._exit(code)


def _serve(daemon: channel.Channel, message: channel.Message, descriptors: list[int], cache: str, spare: int) -> bool:
    """Answer a request; say whether the spare namespaces are somebody's now."""
    from kestrel.runtime import shim

    taken = False
    client = sockets.Socket(fileno=descriptors[0])
    try:
        if message.get("do") == "users":
            asked = message["with"]
            _hand_out(users.ranges(asked["uid_mappings"], asked["gid_mappings"], "users"), client)
            client.close()
            return False
        request = from_json(SandboxRequest, message["with"])
        if message.get("do") != "shim":
            raise InvalidArgument(f"unknown request {message.get('do')!r}")
        taken = spare >= 0 and bool(request.uid_mappings) and not request.host_network and not request.host_ipc
        if os.fork() == 0:
            daemon.socket.detach()  # closed with all else by the shim, by number
            shim.main(request, client, cache, spare if taken else -1)
    except Exception as error:  # noqa: BLE001 - the one who asked is told; the zygote goes on
        try:
            channel.Channel(client).send({"id": 0, "error": error_to_json(error)})
        except OSError:
            pass
    client.close()
    return taken


def _hand_out(ids: users.Ids, client: sockets.Socket) -> None:
    """Send a descriptor of a new user namespace: the daemon, with its threads, cannot make one."""
    namespace = ids.make()
    try:
        channel.Channel(client).send({"id": 0, "ok": {}}, [namespace])
    finally:
        os.close(namespace)
