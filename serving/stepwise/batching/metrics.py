"""Denoising metrics for Triton's metrics port, by pipeline and resolution."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from stepwise.batching.batcher import Batcher
from stepwise.batching.request import Picture, Request, Summary

FLUSH_SECONDS = 1.0

_STEPS = "stepwise_steps_total"
_SECONDS = "stepwise_step_seconds_total"
_PICTURES = "stepwise_step_pictures_total"
_REQUESTS = "stepwise_requests_total"
_ACTIVE = "stepwise_active"
_WAITING = "stepwise_waiting"
_FAMILIES = {
    _STEPS: ("COUNTER", "Denoiser calls"),
    _SECONDS: ("COUNTER", "Seconds spent in steps, including the denoiser calls"),
    _PICTURES: ("COUNTER", "Pictures advanced by a step; divided by the calls, the mean batch"),
    _REQUESTS: ("COUNTER", "Answered requests, by outcome"),
    _ACTIVE: ("GAUGE", "Pictures being denoised"),
    _WAITING: ("GAUGE", "Pictures waiting for a place in a batch"),
}

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """A watcher that counts steps and requests for Prometheus.

    A call to Triton is a message to another process and would take part of every step of a small
    model. So this class counts in its own process, and a thread reports the sums to Triton once a
    second. ``families`` is ``pb_utils.MetricFamily``.
    """

    def __init__(self, pipeline: str, families: Any) -> None:
        self._pipeline = pipeline
        self._families = {
            name: families(name=name, description=text, kind=getattr(families, kind))
            for name, (kind, text) in _FAMILIES.items()
        }
        self._values: defaultdict[_Key, float] = defaultdict(float)
        self._told: defaultdict[_Key, float] = defaultdict(float)
        self._metrics: dict[_Key, Any] = {}
        self._stopping = threading.Event()

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """Count a denoiser call."""
        resolution = pictures[0].request.settings.resolution
        self._values[self._key(_STEPS, resolution)] += 1
        self._values[self._key(_SECONDS, resolution)] += seconds
        self._values[self._key(_PICTURES, resolution)] += len(pictures)

    def ended(self, request: Request, summary: Summary) -> None:
        """Count an answered request."""
        resolution, outcome = request.settings.resolution, summary.outcome.lower()
        self._values[self._key(_REQUESTS, resolution, outcome=outcome)] += 1

    def follow(self, batcher: Batcher) -> None:
        """Start a thread that reports to Triton once a second until ``close``."""
        self._thread = threading.Thread(target=self._tell, args=(batcher,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reporting: Triton hangs on a metrics call from a model that it is unloading."""
        self._stopping.set()
        self._thread.join()

    def _tell(self, batcher: Batcher) -> None:
        while not self._stopping.wait(FLUSH_SECONDS):
            self._flush(batcher)

    def _flush(self, batcher: Batcher) -> None:
        gauges = self._gauges(batcher)
        for key, value in {**dict(self._values), **gauges}.items():
            metric, told = self._metric(key), self._told[key]
            if value == told:
                continue
            if key in gauges:
                metric.set(value)
            else:
                metric.increment(value - told)
            self._told[key] = value

    def _gauges(self, batcher: Batcher) -> Mapping[_Key, float]:
        """Running and waiting pictures by resolution; resolutions without any drop to zero."""
        active, waiting = batcher.standing()
        known = {key: 0.0 for key in self._told if key[0] in (_ACTIVE, _WAITING)}
        for name, counts in ((_ACTIVE, active), (_WAITING, waiting)):
            known.update({self._key(name, size): count for size, count in counts.items()})
        return known

    def _metric(self, key: _Key) -> Any:
        if key not in self._metrics:
            name, labels = key
            self._metrics[key] = self._families[name].Metric(labels=dict(labels))
        return self._metrics[key]

    def _key(self, name: str, resolution: str, **labels: str) -> _Key:
        every = {"pipeline": self._pipeline, "resolution": resolution, **labels}
        return name, tuple(every.items())
