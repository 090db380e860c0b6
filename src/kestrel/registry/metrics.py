"""Numbers for Prometheus (its text format 0.0.4): counted as things happen, written when somebody asks."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_HELP: Final = {
    "requests_total": "requests answered, by method, endpoint and status",
    "sent_bytes_total": "bytes of answers, by endpoint",
    "upstream_requests_total": "what the pull-through cache asked of other registries, by outcome",
    "collected_blobs_total": "blobs that collections removed",
    "collected_bytes_total": "bytes that collections freed",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters by name and labels. One event loop counts, so nothing is locked."""

    def __init__(self) -> None:
        self._counters: Counter[tuple[str, Labels]] = Counter()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._sent: Counter[str] = Counter()

    def request(self, method: str, endpoint: str, status: int, sent: int) -> None:
        """Count an answer; called for each, so it does as little as can be."""
        self._requests[method, endpoint, status] += 1
        self._sent[endpoint] += sent

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Count anything else."""
        self._counters[name, tuple(labels.items())] += by

    def text(self, gauges: Mapping[str, int]) -> bytes:
        """Return everything in Prometheus' words, with what there is at this moment."""
        counters = dict(self._counters)
        for (method, endpoint, status), count in self._requests.items():
            labels = (("method", method), ("endpoint", endpoint), ("code", str(status)))
            counters["requests_total", labels] = count
        for endpoint, sent in self._sent.items():
            counters["sent_bytes_total", (("endpoint", endpoint),)] = sent
        lines = []
        for name in dict.fromkeys(name for name, _ in sorted(counters)):
            lines += [f"# HELP kestrel_registry_{name} {_HELP[name]}", f"# TYPE kestrel_registry_{name} counter"]
            lines += [
                f"kestrel_registry_{name}{_labels(labels)} {counters[name, labels]}"
                for found, labels in sorted(counters)
                if found == name
            ]
        for name, value in sorted(gauges.items()):
            lines += [f"# TYPE kestrel_registry_{name} gauge", f"kestrel_registry_{name} {value}"]
        return "\n".join([*lines, ""]).encode()


def _labels(labels: Labels) -> str:
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for _, value in labels)
    pairs = [f'{name}="{value}"' for (name, _), value in zip(labels, escaped, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""
