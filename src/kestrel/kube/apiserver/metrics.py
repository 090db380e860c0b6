"""A few honest numbers in the Prometheus text format."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Metrics:
    """Counts of what the server has done since it started."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._watches = 0
        self._started = time.time()

    def count(self, method: str, code: int) -> None:
        """Count one answered request."""
        self._requests[method, code] += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watch for as long as it is open."""
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1

    def text(self, version: int) -> str:
        """Return the exposition."""
        lines = ["# TYPE apiserver_request_total counter"]
        for (method, code), count in sorted(self._requests.items()):
            lines.append(f'apiserver_request_total{{verb="{method.upper()}",code="{code}"}} {count}')
        lines += [
            "# TYPE apiserver_watches gauge",
            f"apiserver_watches {self._watches}",
            "# TYPE apiserver_resource_version gauge",
            f"apiserver_resource_version {version}",
            "# TYPE process_start_time_seconds gauge",
            f"process_start_time_seconds {self._started:.3f}",
            "# TYPE process_max_resident_memory_bytes gauge",
            f"process_max_resident_memory_bytes {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}",
        ]
        return "\n".join(lines) + "\n"
