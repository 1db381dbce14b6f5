"""Denoising metrics for Triton's metrics port, by pipeline and resolution."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from stepwise.batching.batcher import Batcher
from stepwise.batching.request import Picture, Request, Summary
from stepwise.request.metrics import Key, Reporter, Source, key

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


class Metrics:
    """Counts steps and requests for Prometheus; ``families`` is ``pb_utils.MetricFamily``."""

    def __init__(self, pipeline: str, families: Any) -> None:
        self._pipeline = pipeline
        self._families = families
        self._values: defaultdict[Key, float] = defaultdict(float)
        self._sizes: set[str] = set()
        self._step_keys: dict[str, list[Key]] = {}

    def stepped(self, pictures: list[Picture], seconds: float) -> None:
        """Count a denoiser call."""
        resolution = pictures[0].request.settings.resolution
        if resolution not in self._step_keys:
            self._step_keys[resolution] = [
                self._key(name, resolution) for name in (_STEPS, _SECONDS, _PICTURES)
            ]
        steps, duration, advanced = self._step_keys[resolution]
        self._values[steps] += 1
        self._values[duration] += seconds
        self._values[advanced] += len(pictures)

    def ended(self, request: Request, summary: Summary) -> None:
        """Count an answered request."""
        resolution, outcome = request.settings.resolution, summary.outcome.lower()
        self._values[self._key(_REQUESTS, resolution, outcome=outcome)] += 1

    def follow(self, batcher: Batcher, *others: Source) -> None:
        """Report to Triton once a second until ``close``, and ``others`` with it."""
        own = Source(_FAMILIES, lambda: {**dict(self._values), **self._gauges(batcher)})
        self._reporter = Reporter(self._families, own, *others)

    def close(self) -> None:
        """Stop reporting."""
        self._reporter.close()

    def _gauges(self, batcher: Batcher) -> Mapping[Key, float]:
        """Running and waiting pictures by resolution; resolutions without any drop to zero."""
        active, waiting = batcher.standing()
        self._sizes |= {*active, *waiting}
        return {
            self._key(name, size): counts.get(size, 0)
            for name, counts in ((_ACTIVE, active), (_WAITING, waiting))
            for size in self._sizes
        }

    def _key(self, name: str, resolution: str, **labels: str) -> Key:
        return key(name, pipeline=self._pipeline, resolution=resolution, **labels)
