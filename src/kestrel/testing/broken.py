"""Programs that cannot be executed, each for a reason of its own, and what has to be said of it whoever is asked."""

import shutil
from pathlib import Path

BUSYBOX = Path("/bin/busybox")

CANNOT_RUN: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("absent", 127, ("absent", "executable file not found in $PATH")),
    ("/bin/absent", 127, ("/bin/absent", "no such file or directory")),
    ("/x/plain", 126, ("/x/plain", "permission denied", "chmod +x /x/plain")),
    ("/x", 126, ("/x", "permission denied", "it is a directory")),
    ("/x/script", 127, ("its interpreter /lib/absent-interpreter is not in the image",)),
    ("/x/program", 127, ("its loader /lib64/ld-linux", "built for another C library or base image")),
    ("/x/crlf", 127, ("its first line ends with CRLF", "dos2unix")),
    ("/x/foreign", 126, ("exec format error", "the program is for ppc64le, this machine is")),
    ("/x/empty", 126, ("exec format error", "the file is empty")),
)
"""A command, its exit code as shells have it, and words of the error with its hint."""


def make(directory: Path) -> Path:
    """Make a directory with these programs in `x`; returns it."""
    foreign = bytearray(BUSYBOX.read_bytes()[:4096])
    foreign[18:20] = (21).to_bytes(2, "little")  # e_machine: PowerPC 64
    place = directory / "x"
    place.mkdir(parents=True)
    for name, content in (
        ("plain", b"#!/bin/sh\n"),
        ("script", b"#!/lib/absent-interpreter -u\n"),
        ("crlf", b"#!/bin/sh\r\necho hi\r\n"),
        ("foreign", bytes(foreign)),
        ("empty", b""),
    ):
        (place / name).write_bytes(content)
        (place / name).chmod(0o644 if name == "plain" else 0o755)
    shutil.copy("/bin/ls", place / "program")  # of the host's C library, which busybox's image has not
    return directory
