"""The words of a mount's `options` (runtime-spec config.md, "Linux mount options"), as what the kernel wants.

`parse` is pure. A word that is none of the spec's goes to the filesystem as data (`size=64m`, `mode=1777`).
"""

from __future__ import annotations

from kestrel.base.values import dataclass
from kestrel.linux import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ATIME = abi.MOUNT_ATTR__ATIME

# word: (attributes to set, attributes to clear). A recursive form with "r" in front exists for each.
_ATTRIBUTES = {
    "ro": (abi.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, abi.MOUNT_ATTR_RDONLY),
    "nosuid": (abi.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, abi.MOUNT_ATTR_NOSUID),
    "nodev": (abi.MOUNT_ATTR_NODEV, 0),
    "dev": (0, abi.MOUNT_ATTR_NODEV),
    "noexec": (abi.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, abi.MOUNT_ATTR_NOEXEC),
    "noatime": (abi.MOUNT_ATTR_NOATIME, _ATIME),
    "atime": (0, _ATIME),
    "relatime": (abi.MOUNT_ATTR_RELATIME, _ATIME),
    "norelatime": (0, _ATIME),
    "strictatime": (abi.MOUNT_ATTR_STRICTATIME, _ATIME),
    "nostrictatime": (0, _ATIME),
    "nodiratime": (abi.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, abi.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (abi.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, abi.MOUNT_ATTR_NOSYMFOLLOW),
}

_PROPAGATION = {
    "private": abi.MS_PRIVATE,
    "shared": abi.MS_SHARED,
    "slave": abi.MS_SLAVE,
    "unbindable": abi.MS_UNBINDABLE,
}

# Flags of the filesystem rather than of the mount: fsconfig(2) takes them by name.
_SUPERBLOCK = {"sync", "dirsync", "mand", "lazytime"}
# fsconfig(2) has no name for MS_SILENT and MS_I_VERSION (common_set_sb_flag in fs/fs_context.c).
_IGNORED = {
    "defaults", "async", "nomand", "nolazytime", "iversion", "noiversion", "silent", "loud", "quiet", "remount",
    "bind", "rbind",
}  # fmt: skip
_OURS = {"tmpcopyup", "copy-symlink", "src-nofollow", "dest-nofollow", "idmap", "ridmap"}

WORDS = frozenset(
    {*_ATTRIBUTES, *(f"r{word}" for word in _ATTRIBUTES), *_PROPAGATION, *(f"r{word}" for word in _PROPAGATION)}
    | _SUPERBLOCK
    | _IGNORED
    | _OURS
)
"""Every word that is not a filesystem's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A mount's options, sorted by who takes them. The recursive attributes apply to all mounts below as well.

    Where the source or the destination is a symbolic link, `source_link` and `destination_link` mean the link itself,
    and with `copy_link` a source that is one is not mounted but made again.
    """

    bind: bool = False
    recursive: bool = False
    add: int = 0
    clear: int = 0
    add_recursive: int = 0
    clear_recursive: int = 0
    propagation: int = 0
    propagation_recursive: bool = False
    data: tuple[tuple[str, str | None], ...] = ()
    copy_up: bool = False
    idmap: str = ""
    source_link: bool = False
    destination_link: bool = False
    copy_link: bool = False


def parse(words: Sequence[str]) -> Options:
    """Return the options; a later word wins over an earlier one, as mount(8) has it, and an empty one is none."""
    add = clear = add_recursive = clear_recursive = propagation = 0
    propagation_recursive = False
    data: list[tuple[str, str | None]] = []
    for word in words:
        recursive_of = _ATTRIBUTES.get(word[1:]) if word.startswith("r") and word not in _ATTRIBUTES else None
        if word in _ATTRIBUTES:
            on, off = _ATTRIBUTES[word]
            add, clear = (add & ~off) | on, (clear & ~on) | off
        elif recursive_of is not None:
            on, off = recursive_of
            add_recursive, clear_recursive = (add_recursive & ~off) | on, (clear_recursive & ~on) | off
        elif word in _PROPAGATION:
            propagation, propagation_recursive = _PROPAGATION[word], False
        elif word[:1] == "r" and word[1:] in _PROPAGATION:
            propagation, propagation_recursive = _PROPAGATION[word[1:]], True
        elif word in _SUPERBLOCK:
            data.append((word, None))
        elif word and word not in _IGNORED and word not in _OURS:
            key, equals, value = word.partition("=")
            data.append((key, value if equals else None))
    return Options(
        bind="bind" in words or "rbind" in words,
        recursive="rbind" in words,
        add=add,
        clear=_cleared(clear, add),
        add_recursive=add_recursive,
        clear_recursive=_cleared(clear_recursive, add_recursive),
        propagation=propagation,
        propagation_recursive=propagation_recursive,
        data=tuple(data),
        copy_up="tmpcopyup" in words,
        source_link="src-nofollow" in words or "copy-symlink" in words,
        destination_link="dest-nofollow" in words,
        copy_link="copy-symlink" in words,
        idmap=next((word for word in words if word in ("idmap", "ridmap")), ""),
    )


def _cleared(clear: int, add: int) -> int:
    """Return the bits to clear: none that is set, but of the access times always all (`man 2 mount_setattr`)."""
    return clear & ~add | (_ATIME if clear & _ATIME else 0)


def describe(options: Options) -> str:
    """Return the options in words for `kestrel explain`."""
    names = {on: word for word, (on, _) in _ATTRIBUTES.items() if on}
    words = [name for bit, name in names.items() if options.add & bit]
    words += [f"r{name}" for bit, name in names.items() if options.add_recursive & bit]
    words += [key if value is None else f"{key}={value}" for key, value in options.data]
    return ",".join(words)
