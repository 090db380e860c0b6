"""Another kernel for the tests: a virtual machine that boots in seconds and runs pytest on this very checkout.

    python -m kestrel.testing.guest tests/unit/linux tests/integration/runtime -k cgroup

Machines differ in what no test can change: the control groups' version, the kernel's age. So the same tests run once
more in a guest that has cgroup v2 alone and the kernel of the last Debian release. QEMU emulates it in software, so
that it needs neither root nor KVM.

    kernel.py     Debian's cloud kernel, fetched by apt and unpacked in the user's cache directory
    root.py       the guest's root: the host's own Python with its packages, busybox and the checkout, as an ext4 image
    machine.py    boots it and collects what `reporter.py`, a plugin of the pytest inside, writes to a serial line

What is missing for it (QEMU, the kernel, mke2fs) raises Unavailable, and the caller says so aloud.
"""

from kestrel.testing.guest.machine import Outcome, Report, run

__all__ = ["Outcome", "Report", "run"]
