"""Capabilities: names, bit masks, and the five sets of a thread (`man 7 capabilities`)."""

from __future__ import annotations

from kestrel.linux import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""In the order of their numbers (`linux/capability.h`)."""

BITS = {f"CAP_{name}": 1 << number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> tuple[int, list[str]]:
    """Return the bit mask of capability names (CAP_ and case optional), and the names that are none."""
    bits, unknown = 0, []
    for name in names:
        bit = BITS.get(canonical(name))
        if bit is None:
            unknown.append(name)
        else:
            bits |= bit
    return bits, unknown


def canonical(name: str) -> str:
    """Return a capability's name in its full spelling: `net_raw` is CAP_NET_RAW."""
    upper = name.upper()
    return upper if upper.startswith("CAP_") else f"CAP_{upper}"


def names(bits: int) -> list[str]:
    """Return the names in a bit mask, in the order of their numbers."""
    return [name for name, bit in BITS.items() if bits & bit]


def effective() -> int:
    """Return this thread's effective set: what the machine lets us do."""
    return syscalls.capget()[0]


def drop_bounding(keep: int) -> None:
    """Take everything outside `keep` out of the bounding set. Needs CAP_SETPCAP unless nothing is to go."""
    for bit in BITS.values():
        if keep & bit:
            continue
        try:
            syscalls.prctl(abi.PR_CAPBSET_DROP, bit.bit_length() - 1)
        except OSError as error:
            if error.errno == 22:  # EINVAL: this kernel does not know the capability, so nobody has it
                return
            raise


def raise_ambient(bits: int) -> None:
    """Put `bits` into the ambient set; they must be in the permitted and inheritable sets already."""
    syscalls.prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in BITS.values():
        if bits & bit:
            syscalls.prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_RAISE, bit.bit_length() - 1)
