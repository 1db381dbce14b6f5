"""Values on Triton's metrics port."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FLUSH_SECONDS = 1.0

# A metric's name, and its labels with their values.
Key = tuple[str, tuple[tuple[str, str], ...]]
Sample = Callable[[], Mapping[Key, float]]


def key(name: str, **labels: str) -> Key:
    """The key of a metric with these labels."""
    return name, tuple(labels.items())


@dataclass(frozen=True)
class Source:
    """Metrics and their values.

    ``described`` has the kind, COUNTER or GAUGE, and the help text of each metric by name.
    ``sample`` returns totals for counters.
    """

    described: Mapping[str, tuple[str, str]]
    sample: Sample


class Reporter:
    """Passes the values of ``sources`` to Triton once a second, in a thread, until ``close``.

    Values are counted in the model's process and passed on together, because each call to Triton
    is a message to another process and would take a part of every step of a small model.
    ``families`` is ``pb_utils.MetricFamily``.
    """

    def __init__(self, families: Any, *sources: Source) -> None:
        described = [item for source in sources for item in source.described.items()]
        self._kinds = {name: kind for name, (kind, _) in described}
        self._families = {
            name: families(name=name, description=text, kind=getattr(families, kind))
            for name, (kind, text) in described
        }
        self._samples = [source.sample for source in sources]
        self._reported: defaultdict[Key, float] = defaultdict(float)
        self._metrics: dict[Key, Any] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report no more: Triton hangs in a call from a model that it is unloading."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            self._flush()

    def _flush(self) -> None:
        values = [item for sample in self._samples for item in sample().items()]
        for name, value in values:
            reported = self._reported[name]
            if value == reported:
                continue
            metric = self._metric(name)
            if self._kinds[name[0]] == "GAUGE":
                metric.set(value)
            else:
                metric.increment(value - reported)
            self._reported[name] = value

    def _metric(self, name: Key) -> Any:
        if name not in self._metrics:
            family, labels = name
            self._metrics[name] = self._families[family].Metric(labels=dict(labels))
        return self._metrics[name]
