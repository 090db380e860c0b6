"""Overlay mounts by mount(2), for kernels that do not take all of it by descriptor.

Until Linux 6.5 overlay takes its layers as one string, which fsconfig(2) cuts at 255 bytes; until 6.13 the upper
directory as a path; until 6.15 only layers that are somewhere in the caller's mount namespace, which a layer that was
mounted or id-mapped for this purpose is not. mount(2) takes a page of options, so there is room for a few hundred
layers with short names, and a mount namespace of our own is a place to give such names: a tmpfs in it has a directory
or a symbolic link for each layer, numbered. That namespace belongs to a thread that ends right away; what remains is
the detached copy of the overlay.
"""

from __future__ import annotations

import _thread
import os

from kestrel.linux import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SCENE = "/proc"
"""Where the tmpfs and then the overlay go in the thread's namespace: a directory there always is, and no layer's."""


def mount(layers: Sequence[tuple[str, int]], upper: str, work: str, attributes: int) -> int:
    """Mount an overlay, detached, and return its descriptor. Raises OSError.

    Layers are the topmost first, each with its path and a descriptor: of a detached mount, which is used, or of
    anything else, and then the path is. Without `upper` it is read-only.
    """
    mounted: list[int] = []
    failed: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work_apart() -> None:
        try:
            mounted.append(_mount_here(layers, upper, work))
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            failed.append(error)
        finally:
            done.release()

    _thread.start_new_thread(work_apart, ())
    done.acquire()
    if failed:
        raise failed[0]
    if attributes:
        syscalls.mount_setattr(mounted[0], "", abi.AT_EMPTY_PATH, add=attributes)
    return mounted[0]


def _mount_here(layers: Sequence[tuple[str, int]], upper: str, work: str) -> int:
    syscalls.unshare(abi.CLONE_NEWNS)  # which gives this thread a working directory of its own, too
    syscalls.mount(None, "/", None, abi.MS_REC | abi.MS_PRIVATE)
    syscalls.mount("kestrel", _SCENE, "tmpfs", 0, "mode=700")
    os.chdir(_SCENE)
    for index, (path, fd) in enumerate(layers):
        _name(str(index), path, fd)
    options = [f"lowerdir={':'.join(str(index) for index in range(len(layers)))}"]
    if upper:
        os.symlink(upper, "u")
        os.symlink(work, "w")
        options += ["upperdir=u", "workdir=w"]
    try:
        syscalls.mount("overlay", _SCENE, "overlay", 0, ",".join(options))
    except OSError as error:
        names = ", ".join(path for path, _ in layers)
        raise OSError(error.errno, error.strerror, names) from error
    return syscalls.open_tree(abi.AT_FDCWD, _SCENE, abi.OPEN_TREE_CLONE)


def _name(name: str, path: str, fd: int) -> None:
    os.mkdir(name)
    target = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(fd, target, subject=path)
    except OSError:  # it is not a detached mount
        os.rmdir(name)
        os.symlink(path, name)
    finally:
        os.close(target)
