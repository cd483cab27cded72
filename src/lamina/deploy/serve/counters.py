"""Metrics of the server in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of requests by path and status, their duration, and images by model and task."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._images: Counter[tuple[str, str]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a completed request; ``path`` is one of the routes, or ``other``."""
        self._requests[path, status] += 1
        self._seconds += seconds
        self._buckets.update(limit for limit in BUCKETS_SECONDS if seconds <= limit)

    def count_images(self, model: str, task: str, count: int) -> None:
        self._images[model, task] += count

    def format(self, gauges: Mapping[str, int]) -> str:
        total = sum(self._requests.values())
        lines = ["# TYPE lamina_requests_total counter"]
        lines += [
            f'lamina_requests_total{{path="{quote(path)}",status="{status}"}} {count}'
            for (path, status), count in sorted(self._requests.items())
        ]
        lines.append("# TYPE lamina_images_total counter")
        lines += [
            f'lamina_images_total{{model="{quote(model)}",task="{task}"}} {count}'
            for (model, task), count in sorted(self._images.items())
        ]
        lines.append("# TYPE lamina_request_seconds histogram")
        lines += [
            f'lamina_request_seconds_bucket{{le="{limit}"}} {self._buckets[limit]}'
            for limit in BUCKETS_SECONDS
        ]
        lines += [
            f'lamina_request_seconds_bucket{{le="+Inf"}} {total}',
            f"lamina_request_seconds_sum {self._seconds:.6f}",
            f"lamina_request_seconds_count {total}",
        ]
        for name, value in gauges.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE {name} {kind}", f"{name} {int(value)}"]
        return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    """Escape the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
