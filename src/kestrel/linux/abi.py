"""Numbers of the kernel's binary interface, as plain constants.

Names are the kernel's own, taken from its public headers (`linux/mount.h`, `linux/sched.h`, `linux/openat2.h`,
`linux/prctl.h`, `linux/capability.h`, `linux/seccomp.h`, `asm/unistd.h`). Nothing here calls anything.
"""

import posix  # `os` takes longer to load than sealing a command, which is done with these numbers

MACHINE = posix.uname().machine

# System calls that glibc 2.36 (Debian 12) has no function for. From 424 on, every architecture uses one table.
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_FSOPEN = 430
NR_FSCONFIG = 431
NR_FSMOUNT = 432
NR_CLONE3 = 435
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_PIDFD_GETFD = 438
NR_MOUNT_SETATTR = 442

# The older ones differ by architecture.
_OLD = {
    "x86_64": {
        "pivot_root": 155,
        "seccomp": 317,
        "keyctl": 250,
        "execveat": 322,
        "ioprio_set": 251,
        "sched_setattr": 314,
        "set_mempolicy": 238,
    },
    "aarch64": {
        "pivot_root": 41,
        "seccomp": 277,
        "keyctl": 219,
        "execveat": 281,
        "ioprio_set": 30,
        "sched_setattr": 274,
        "set_mempolicy": 237,
    },
}.get(MACHINE, {})
NR_PIVOT_ROOT = _OLD.get("pivot_root", -1)
NR_SECCOMP = _OLD.get("seccomp", -1)
NR_KEYCTL = _OLD.get("keyctl", -1)
NR_EXECVEAT = _OLD.get("execveat", -1)
NR_IOPRIO_SET = _OLD.get("ioprio_set", -1)
NR_SCHED_SETATTR = _OLD.get("sched_setattr", -1)
NR_SET_MEMPOLICY = _OLD.get("set_mempolicy", -1)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

O_PATH = 0o10000000

# mount(2), umount2(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

# open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2)
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = posix.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_BINARY = 2
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# clone(2), unshare(2), setns(2)
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_FILES = 0x00000400
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# wait4(2): children without an exit signal too
WALL = 0x40000000

# close_range(2)
CLOSE_RANGE_CLOEXEC = 4

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_GET_DUMPABLE = 3
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# capget(2)
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_LOG = 2
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32

# keyctl(2)
KEYCTL_JOIN_SESSION_KEYRING = 1

# ioctl_tty(2), pty(7)
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCGWINSZ = 0x5413

# netdevice(7)
SIOCSIFFLAGS = 0x8914
SIOCGSKNS = 0x894C
IFF_UP = 1

# statfs(2) f_type
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
TMPFS_MAGIC = 0x01021994
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630
EROFS_SUPER_MAGIC = 0xE0F5E1E2
