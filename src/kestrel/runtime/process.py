"""Who the process is and what it may do: from the spec's `process` to the state in which execve(2) is called.

`parse` is pure and makes a `Process`, all numbers and bytes. `confine` is carried out in the container, in the order
that the kernel's rules force:

    rlimits and OOM score   while we may still raise them
    no_new_privs            before a filter that is installed without CAP_SYS_ADMIN
    seccomp                 here when no_new_privs is off: installing it needs CAP_SYS_ADMIN, which goes next
    bounding set            needs CAP_SETPCAP
    groups, gid, uid        with KEEPCAPS, so that the wanted sets can be taken from what we have
    capability sets         the last right given up

and right before execve, when no_new_privs is on, seccomp, so that the filter need not allow any of the above.

No name is looked up: numbers only. /etc/passwd of an image is a stranger's file, read as text for HOME and nothing
else; looking names up through libc would load its NSS modules (CVE-2019-14271).
"""

from __future__ import annotations

import os
import resource
import stat

from kestrel.base.errors import InvalidArgument
from kestrel.base.values import dataclass, field
from kestrel.linux import abi, capabilities, lsm, syscalls
from kestrel.runtime import scheduling
from kestrel.runtime.scheduling import Scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ID = 2**32 - 2
MAX_GROUPS = 65536  # NGROUPS_MAX (`man 2 setgroups`)
PASSWD_SIZE = 1 << 20  # bytes of an image's /etc/passwd that are looked at
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A compiled seccomp program and the flags to install it with."""

    program: bytes
    flags: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Everything about a process but its namespaces and files. Capability sets are bit masks."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    terminal: bool = False
    bounding: int = 0
    effective: int = 0
    inheritable: int = 0
    permitted: int = 0
    ambient: int = 0
    rlimits: tuple[tuple[str, int, int], ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    filter: Filter | None = None
    scheduling: Scheduling | None = None
    apparmor: str = ""
    selinux: str = ""
    cpus: tuple[frozenset[int] | None, frozenset[int] | None] = (None, None)
    """Where a joining process runs: at first, and in the end (`execCPUAffinity`)."""
    warnings: tuple[str, ...] = field(default=(), compare=False)


def parse(process: Mapping[str, Any], seccomp: Filter | None = None, linux: Mapping[str, Any] | None = None) -> Process:
    """Return the process a spec describes. Raises InvalidArgument naming the member that is wrong.

    `linux` is that member of the spec, for its `personality`.
    """
    args = process.get("args") or []
    if not args or not all(isinstance(arg, str) for arg in args):
        raise InvalidArgument("process.args must not be empty", hint="the image has no command; give one")
    cwd = process.get("cwd", "/")
    if not cwd.startswith("/"):
        raise InvalidArgument(f"process.cwd {cwd!r} is not an absolute path")
    for word in [*args, *(process.get("env") or []), cwd]:
        if "\0" in word:
            raise InvalidArgument(f"process has a NUL byte in {word!r}")
    user = process.get("user") or {}
    sets, warnings = _capabilities(process.get("capabilities") or {})
    return Process(
        args=tuple(args),
        env=tuple(_variable(entry) for entry in process.get("env") or []),
        cwd=cwd,
        uid=_identifier(user.get("uid", 0), "uid"),
        gid=_identifier(user.get("gid", 0), "gid"),
        groups=_groups(user.get("additionalGids") or ()),
        umask=user.get("umask", 0o022),
        terminal=bool(process.get("terminal")),
        **sets,
        rlimits=_rlimits(process.get("rlimits") or []),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        filter=seccomp,
        scheduling=scheduling.parse(process, linux or {}),
        apparmor=process.get("apparmorProfile") or "",
        selinux=process.get("selinuxLabel") or "",
        cpus=_cpus(process.get("execCPUAffinity") or {}),
        warnings=tuple(warnings),
    )


def _cpus(given: Mapping[str, str]) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    initial, final = (scheduling.numbers(given.get(name) or "", "CPUs") for name in ("initial", "final"))
    return initial, final


def _variable(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals or not name:
        raise InvalidArgument(f"process.env entry {entry!r} is not NAME=VALUE")
    return name, value


def _identifier(value: object, name: str) -> int:
    # bool is an int in Python, and a float would pass range checks: be exact (CVE-2024-40635)
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise InvalidArgument(f"process.user.{name} {value!r} is not a number from 0 to {MAX_ID}")
    return value


def _groups(given: Sequence[object]) -> tuple[int, ...]:
    if len(given) > MAX_GROUPS:
        raise InvalidArgument(f"process.user.additionalGids has {len(given)} groups, the most are {MAX_GROUPS}")
    return tuple(_identifier(gid, "additionalGids") for gid in given)


def _capabilities(spec: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], list[str]]:
    """Return the five sets as masks; an unknown name is a warning, as runc has it since new kernels bring new names."""
    masks, strangers = {}, set[str]()
    for name in SETS:
        masks[name], unknown = capabilities.mask(spec.get(name) or ())
        strangers.update(unknown)
    listed = " ".join(sorted(strangers))
    warnings = [f"ignoring unknown or unavailable capabilities: [{listed}]"] if strangers else []
    # The kernel refuses effective outside permitted, and ambient outside permitted and inheritable.
    surplus = capabilities.names(masks["effective"] & ~masks["permitted"])
    warnings += [f"capability {name} is not made effective: it is not permitted" for name in surplus]
    masks["effective"] &= masks["permitted"]
    missing = masks["ambient"] & ~(masks["permitted"] & masks["inheritable"])
    warnings += [
        f"can't raise ambient capability {name}: it is not both permitted and inheritable"
        for name in capabilities.names(missing)
    ]
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    return masks, warnings


def _rlimits(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int, int], ...]:
    found: dict[str, tuple[str, int, int]] = {}
    for entry in entries:
        kind = str(entry.get("type"))
        if not kind.startswith("RLIMIT_") or not hasattr(resource, kind):
            raise InvalidArgument(f"unknown resource limit {kind}")
        if kind in found:
            raise InvalidArgument(f"resource limit {kind} is given twice")
        soft, hard = _limit(entry["soft"]), _limit(entry["hard"])
        if soft % 2**64 > hard % 2**64:  # RLIM_INFINITY is -1 here, and the largest number to the kernel
            raise InvalidArgument(f"resource limit {kind}: soft {entry['soft']} is above hard {entry['hard']}")
        found[kind] = (kind, soft, hard)
    return tuple(found.values())


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 2**63 else value


# --- in the container ------------------------------------------------------------------------------------------------


def confine(
    process: Process,
    tell: Callable[[int], None],
    *,
    bound: bool = True,
    user_namespace: int = -1,
    own_mounts: bool = False,
) -> list[str]:
    """Become the process's user with its rights, in its directory; return what the machine did not let us do.

    `tell` hands on the descriptor at which a seccomp agent listens, if the filter has one.
    `bound`: it is to die with its parent. `user_namespace` (a descriptor, or a pidfd of a process in it) is entered
    first: what comes before needs rights over the host, what follows is done with all rights over the container alone.
    With `own_mounts` a process that may mount gets a mount namespace that belongs to that user namespace.
    """
    warnings = _set_rlimits(process)
    if process.scheduling is not None:
        process.scheduling.apply()
    lsm.confine_next(process.apparmor, process.selinux)
    if user_namespace >= 0:
        syscalls.setns(user_namespace, abi.CLONE_NEWUSER)
        if own_mounts and process.permitted & capabilities.BITS["CAP_SYS_ADMIN"]:
            syscalls.unshare(abi.CLONE_NEWNS)
    syscalls.prctl(abi.PR_SET_KEEPCAPS, 1)
    if process.no_new_privileges:
        syscalls.prctl(abi.PR_SET_NO_NEW_PRIVS, 1)
    entered = _enter_directory(process.cwd, last=False)
    have = syscalls.capget()[1]
    if process.filter is not None and not process.no_new_privileges:
        _install(process.filter, tell)
    inheritable = process.inheritable & have
    withheld = (process.permitted | process.inheritable) & ~have
    if withheld:
        named = " ".join(capabilities.names(withheld))
        warnings.append(f"capabilities that this machine withholds were not given: {named}")
    if inheritable:
        # Before the bounding set shrinks: what is outside of it can no longer become inheritable.
        syscalls.capset(have, have, inheritable)
    capabilities.drop_bounding(process.bounding)
    os.setgroups(process.groups)
    os.setresgid(process.gid, process.gid, process.gid)
    os.setresuid(process.uid, process.uid, process.uid)
    # What this machine withholds from us nobody can be given; the kernel would refuse the whole call.
    permitted, effective = process.permitted & have, process.effective & have
    # chdir may need a right that the process does not keep (its effective set); take it while all are permitted.
    if not entered:
        _enter_directory(process.cwd, last=True)
    syscalls.capset(effective, permitted, inheritable)
    syscalls.prctl(abi.PR_SET_KEEPCAPS, 0)
    if process.ambient:
        capabilities.raise_ambient(process.ambient & permitted & inheritable)
    os.umask(process.umask)
    # Changing ids cleared it (`man 2 PR_SET_PDEATHSIG`): a container dies with its shim.
    if bound:
        syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)
    return warnings


def install_late(process: Process, tell: Callable[[int], None]) -> None:
    """Install the filter of a process that gains no privileges: it needs none for that, so it comes last."""
    if process.filter is not None and process.no_new_privileges:
        _install(process.filter, tell)


def _install(wanted: Filter, tell: Callable[[int], None]) -> None:
    listener = syscalls.seccomp_filter(wanted.program, wanted.flags)
    if wanted.flags & abi.SECCOMP_FILTER_FLAG_NEW_LISTENER:
        tell(listener)
        os.close(listener)


def set_oom_score(value: int, process: int | str = "self") -> str | None:
    """Write a process's OOM score, our own unless told. Returns a warning when that was refused.

    Lowering it needs CAP_SYS_RESOURCE. Called before the container's root is entered, so that /proc is the host's or a
    fresh one of ours.
    """
    try:
        fd = os.open(f"/proc/{process}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except PermissionError:
        return f"oom_score_adj {value} was not set: lowering it needs CAP_SYS_RESOURCE"
    return None


def _set_rlimits(process: Process) -> list[str]:
    """Set limits; without CAP_SYS_RESOURCE a hard limit cannot rise, so it stays where it is, and we say so."""
    warnings = []
    for kind, soft, hard in process.rlimits:
        number = getattr(resource, kind)
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError:
            have = resource.getrlimit(number)[1]
            ceiling = hard if have == resource.RLIM_INFINITY else have
            wanted = ceiling if soft == resource.RLIM_INFINITY or soft > ceiling >= 0 else soft
            resource.setrlimit(number, (wanted, ceiling))
            warnings.append(f"resource limit {kind} was held at {ceiling}: raising it needs CAP_SYS_RESOURCE")
    return warnings


def _enter_directory(path: str, *, last: bool) -> bool:
    """chdir(2), as root first and as the user when root was refused; never into a directory outside the root."""
    try:
        os.chdir(path)
    except PermissionError as error:
        if not last:
            return False
        raise _directory_error(path, error) from None
    except OSError as error:
        raise _directory_error(path, error) from None
    try:
        os.getcwd()
    except FileNotFoundError:
        # getcwd(2) says "(unreachable)" when the directory is not below the root: a leaked descriptor (CVE-2024-21626)
        raise InvalidArgument(f"working directory {path} is outside of the container") from None
    return True


def _directory_error(path: str, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"chdir to cwd ({path!r}) set in the configuration failed: {error.strerror}".lower())


def environment(process: Process) -> dict[str, str]:
    """Return the environment: the spec's, later entries winning, and HOME when nobody set it to anything."""
    env = dict(process.env)
    if not env.get("HOME"):
        env["HOME"] = _home(process.uid) or ("/root" if process.uid == 0 else "/")
    return env


def _home(uid: int) -> str:
    """Return a user's directory as the image's /etc/passwd has it (`man 5 passwd`), empty when it does not say."""
    try:
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        text = os.read(fd, PASSWD_SIZE) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return ""
    finally:
        os.close(fd)
    number = b"%d" % uid
    lines = (line.split(b":") for line in text.split(b"\n"))
    return next((os.fsdecode(words[5]) for words in lines if len(words) > 6 and words[2] == number), "")
