"""Removing directory trees that a stranger filled.

`shutil.rmtree` recurses once a level, and a path may have two thousand: a layer could be made that unpacks but
cannot be removed again. Here everything is by descriptor, nothing is followed, and depth costs neither stack nor
descriptors: what lies too deep is moved up first.
"""

import os
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH: Final = 64


def remove_tree(path: "str | os.PathLike[str]", *, dir_fd: "int | None" = None) -> None:
    """Remove a directory and all in it; a path that is not there is fine, anything else raises OSError."""
    try:
        top = os.open(path, _DIRECTORY, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        while not _emptied(top, top, 0):
            pass
    finally:
        os.close(top)
    os.rmdir(path, dir_fd=dir_fd)


def _emptied(directory: int, top: int, depth: int) -> bool:
    """Remove what is in a directory; False when something deep was moved to the top instead."""
    complete = True
    with os.scandir(directory) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif depth == _DEPTH:
            os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=directory, dst_dir_fd=top)
            complete = False
        else:
            child = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                complete &= _emptied(child, top, depth + 1)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
    return complete
