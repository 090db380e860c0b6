"""Control groups that programs of others leave: finding them by name, and taking them away."""

import os
import re
from contextlib import suppress
from pathlib import Path

from kestrel.linux import cgroups


def groups_called(names: str) -> set[str]:
    """Return the names of control groups that match an expression, wherever they are."""
    return {Path(top).name for top, _, _ in os.walk(cgroups.ROOT) if re.fullmatch(names, Path(top).name)}


def remove_group(name: str) -> bool:
    """Kill what is in a control group and remove it, and what programs make of that name elsewhere; say if all is gone.

    runc puts it below our own group too where its caller is in one (memory of version 1), and podman makes directories
    for controllers that are not mounted.
    """
    with suppress(OSError):  # what lives in one now is somebody else's
        cgroups.destroy(name)
    for top, _, files in os.walk(cgroups.ROOT, topdown=False):
        for path in (*files, "") if name in Path(top).parts else ():
            with suppress(OSError):  # files of a group that is one go with it, and only so
                os.remove(f"{top}/{path}") if path else os.rmdir(top)
    return not groups_called(re.escape(name))
