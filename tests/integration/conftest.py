"""Whole Kestrels for tests of the command line: one that a module's tests share, and one for each that breaks it.

Both end with `kestrel down --all`, and then the kernel is asked whether anything of them is left.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance

BUSYBOX = Path("/bin/busybox")
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
COPY etc /etc
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp && mkdir /root /home /var
ENV PATH=/bin
CMD ["sh"]
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nwheel:x:10:alice\n"


def build_base(kestrel: Instance) -> None:
    """Give an instance the image `box`: busybox and two users."""
    kestrel.build("box", DOCKERFILE, {"busybox": BUSYBOX.read_bytes(), "etc/passwd": PASSWD, "etc/group": GROUP})


def end(kestrel: Instance) -> None:
    """Take an instance down as people do, and fail when anything of it is left.

    The kernel ends the children of a process a moment after it.
    """
    kestrel("down", "--all")
    soon = time.monotonic() + 3
    while (left := kestrel.traces()) and time.monotonic() < soon:
        time.sleep(0.05)
    assert not left, "left behind: " + "\n".join(left)


@pytest.fixture(scope="session")
def shared() -> Iterator[Instance]:
    """A Kestrel that runs, with the image `box`, for the whole session."""
    if os.geteuid() or not BUSYBOX.exists():
        pytest.skip("needs root and a static /bin/busybox")
    with Instance.make() as kestrel:
        kestrel("up")
        build_base(kestrel)
        yield kestrel
        end(kestrel)


@pytest.fixture
def platform(shared: Instance) -> Iterator[Instance]:
    """The session's Kestrel; a test that leaves containers behind has them removed."""
    before = {c["id"] for c in shared("ps", "-a", "--json").json()}
    yield shared
    left = [c["id"] for c in shared("ps", "-a", "--json").json() if c["id"] not in before]
    if left:
        shared("rm", "-f", *left)


@pytest.fixture
def own_platform() -> Iterator[Instance]:
    """A Kestrel for one test alone, which may break it; it runs and has the image `box`."""
    if os.geteuid() or not BUSYBOX.exists():
        pytest.skip("needs root and a static /bin/busybox")
    with Instance.make() as kestrel:
        kestrel("up")
        build_base(kestrel)
        yield kestrel
        end(kestrel)
