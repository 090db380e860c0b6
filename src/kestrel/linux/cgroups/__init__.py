"""Control groups: one interface over version 1 (a hierarchy per controller) and version 2 (one for all).

`detect()` finds out which of the two has the controllers; a `Hierarchy` makes and finds groups by a path relative to
its root, the same path in every hierarchy of version 1. Which controllers exist is probed: a limit that no controller
can enforce is an error that names it, accounting that is not there is reported as absent.

Attaching differs. Version 2 lets a process be born in its group (CLONE_INTO_CGROUP, `directory`), also where it is
mounted beside version 1 without controllers: moving there waits for a grace period, 12 ms. In version 1 a
child writes "0" into the `tasks` files itself before it does anything else (`joiners`): moving oneself as a single
thread is the one way that does not wait for a grace period of the whole machine (cgroup_procs_write_start in the
kernel's cgroup.c), which costs milliseconds for each group when the parent does it.
"""

from kestrel.linux.cgroups.host import ROOT, children, destroy, detect, kill, remove
from kestrel.linux.cgroups.values import DeviceRule, Group, Hierarchy, Limits, OomWatch, Stats

__all__ = [
    "ROOT",
    "DeviceRule",
    "Group",
    "Hierarchy",
    "Limits",
    "OomWatch",
    "Stats",
    "children",
    "destroy",
    "detect",
    "kill",
    "remove",
]
