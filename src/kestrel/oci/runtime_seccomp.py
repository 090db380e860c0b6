"""The seccomp profile that containers get unless they ask for another, as the runtime-spec's `linux.seccomp`. Pure.

Written from rules, not from a list of somebody else's:

- What programs of all kinds do to their own files, memory, processes, sockets and timers is allowed.
- What administers the machine is refused with EPERM, and allowed with the capability that the kernel wants for it.
- What makes namespaces or mounts is refused without CAP_SYS_ADMIN: it is how containers are left (CVE-2022-0492).
- Sockets of the families AF_ALG and AF_VSOCK are refused: kernel crypto (CVE-2026-31431), and the hypervisor.
- Interfaces with a long record of holes and few users (io_uring, keyrings, userfaultfd, perf, bpf) are refused.
- Everything else, above all what is newer than this profile, is ENOSYS: libraries then use what they used before,
  where EPERM would make them fail (moby #42680). clone3 is ENOSYS too, since its flags cannot be looked at.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from kestrel.oci.runtime_spec import Seccomp

EPERM, ENOSYS = 1, 38

ALLOWED = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat lchown lchown32 lgetxattr link linkat listxattr
listxattrat listmount statmount llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod
mknodat name_to_handle_at newfstatat oldfstat oldlstat oldstat open openat openat2 pread64 preadv preadv2 pwrite64
pwritev pwritev2 read readahead readdir readlink readlinkat readv removexattr removexattrat rename renameat renameat2
rmdir setxattr setxattrat stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2
arm_sync_file_range syncfs truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes write
writev

fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch

_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
eventfd eventfd2 ioctl memfd_create pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select sendfile
sendfile64 signalfd signalfd4 splice tee timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64 vmsplice io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit

brk cachestat get_mempolicy madvise map_shadow_stack mbind membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect
mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease
remap_file_pages set_mempolicy set_mempolicy_home_node memfd_secret

accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair

arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv
futex_wake get_robust_list get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self modify_ldt nice pause pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64
process_vm_readv process_vm_writev ptrace restart_syscall riscv_flush_icache riscv_hwprobe rseq sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setrlimit setsid setuid setuid32 sysinfo tgkill times tkill ugetrlimit uname olduname oldolduname vfork
wait4 waitid waitpid breakpoint cacheflush

rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sgetmask sigaction sigaltstack signal sigpending sigprocmask sigreturn
sigsuspend ssetmask uretprobe

adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 getrandom

ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
""".split()

BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
    """.split(),
    "CAP_SYS_BOOT": ["reboot"],
    "CAP_SYS_CHROOT": ["chroot"],
    "CAP_SYS_MODULE": "delete_module finit_module init_module".split(),
    "CAP_SYS_PACCT": ["acct"],
    "CAP_SYS_PTRACE": ["kcmp"],
    "CAP_SYS_RAWIO": "ioperm iopl".split(),
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime".split(),
    "CAP_SYS_TTY_CONFIG": ["vhangup"],
    "CAP_SYS_NICE": "migrate_pages move_pages".split(),
    "CAP_SYSLOG": ["syslog"],
    "CAP_BPF": ["bpf"],
    "CAP_PERFMON": ["perf_event_open"],
    "CAP_DAC_READ_SEARCH": ["open_by_handle_at"],
}
"""What each capability opens. The kernel checks the capability again; this only makes it reachable."""

REFUSED = """
_sysctl add_key afs_syscall bdflush create_module get_kernel_syms getpmsg io_uring_enter io_uring_register
io_uring_setup kexec_file_load kexec_load keyctl nfsservctl putpmsg query_module request_key security
swapoff swapon sysfs tuxcall uselib userfaultfd ustat vm86 vm86old vserver
""".split()
"""Known and refused for everybody: EPERM."""

NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET, in the first argument of clone(2)."""

PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, Linux with a 32-bit uname, and asking which one it is (`man 2 personality`)."""

ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}


def seccomp_for(capabilities: Iterable[str], machine: str = "") -> Seccomp:
    """Return the profile for a process whose bounding set is `capabilities` (full names)."""
    held = set(capabilities)
    opened = {name for capability, names in BY_CAPABILITY.items() if capability in held for name in names}
    closed = {name for names in BY_CAPABILITY.values() for name in names} - opened - {"clone", "clone3"}
    rules: list[dict[str, Any]] = [_allow([*ALLOWED, *sorted(opened)])]
    rules += [_allow(["personality"], _equal(0, value)) for value in PERSONALITIES]
    # AF_ALG is 38, AF_VSOCK 40. socketcall(2) of 32-bit programs hides its arguments from a filter.
    for operator, family in (("SCMP_CMP_LT", 38), ("SCMP_CMP_EQ", 39), ("SCMP_CMP_GT", 40)):
        rules.append(_allow(["socket"], {"index": 0, "value": family, "op": operator}))
    rules.append(_refuse(["socket"], EPERM, _equal(0, 38)))
    rules.append(_refuse(["socket"], EPERM, _equal(0, 40)))
    if "clone" not in opened:
        without = {"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_allow(["clone"], without))
    rules.append(_refuse([*REFUSED, *sorted(closed)], EPERM))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": list(ARCHITECTURES.get(machine or os.uname().machine, ())),
        "syscalls": rules,
    }


def _allow(names: list[str], *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": list(arguments)}


def _refuse(names: list[str], errno: int, *arguments: dict[str, Any]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": list(arguments)}


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
