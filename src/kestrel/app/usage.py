"""What takes how much room below the data root: counted as `du` does, hard links once, while everything goes on."""

import os
from pathlib import Path
from typing import Any

BLOCK = 512  # bytes; st_blocks counts these whatever the filesystem's own blocks are (man 2 stat)


def measure(root: Path) -> dict[str, Any]:
    """Return files and allocated bytes for each entry of the root, and the total."""
    seen: set[tuple[int, int]] = set()
    rows = []
    for path in sorted(root.iterdir()):
        count, size = _measure(str(path), seen)
        rows.append({"what": path.name, "count": count, "bytes": size})
    return {"rows": rows, "total": sum(row["bytes"] for row in rows)}


def _measure(path: str, seen: set[tuple[int, int]]) -> tuple[int, int]:
    """Count a file, or a directory and all below it; what is removed meanwhile counts nothing."""
    try:
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) in seen:
            return 0, 0
        seen.add((status.st_dev, status.st_ino))
        inner = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) and not os.path.islink(path) else []
    except FileNotFoundError:
        return 0, 0
    count, size = 1, status.st_blocks * BLOCK
    for below in inner:
        more, room = _measure(below, seen)
        count += more
        size += room
    return count, size
