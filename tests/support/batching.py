"""Requests for tests of the queue, the batcher and the loop."""

import itertools
import math
from dataclasses import dataclass, field
from threading import Event as Flag

import numpy as np

from stepwise.batching.batcher import Batcher
from stepwise.batching.request import Request, Summary, table
from stepwise.description.errors import ModelFailed, RequestError
from stepwise.description.manifest import VideoLayout
from stepwise.description.settings import Settings
from stepwise.request.events import Event

_NAMES = itertools.count()
LAYOUT = VideoLayout(
    **{"frames": 4, "scale": 8, "patch": 2, "head_dim": 8, "decoder_caches": ()},
    **{"encoder_caches": (), "tile": 512, "tile_stride": 448, "scaling_factor": 1.0},
    reference_noise=0.0,
)
SCHEDULE = {"num_train_timesteps": 1000, "shift": 3.0}


@dataclass
class Answers:
    """The responses to one request, in order."""

    events: list[Event] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)
    errors: list[RequestError] = field(default_factory=list)
    done: Flag = field(default_factory=Flag)

    previews: list[np.ndarray] = field(default_factory=list)
    summary: Summary | None = None

    def send(self, event, latents, summary):
        assert not self.done.is_set(), "a response after the final one"
        self.events.append(event)
        if latents is not None:
            (self.latents if event.kind == "result" else self.previews).append(latents)
        if summary is not None:
            self.end(summary)

    def fail(self, error, summary):
        assert not self.done.is_set(), "an error after the final response"
        self.errors.append(error)
        self.end(summary)

    def end(self, summary):
        self.summary = summary
        self.done.set()


def request(
    steps=4,
    guidance=3.0,
    side=4,
    seed=0,
    num_images=1,
    value=1.0,
    *,
    name=None,
    cap=16,
    arrived=0.0,
    deadline=math.inf,
    sampler="euler",
    schedule=SCHEDULE,
    frames=0,
    **serving,
):
    """A request with ``value`` as conditioning, and ``-value`` for the negative row.

    ``name`` is its id; ``serving`` takes priority, client and preview_every. With ``frames``, in
    latent frames, it asks for a video.
    """
    settings = Settings(
        steps=steps,
        guidance_scale=guidance,
        sampler=sampler,
        seed=seed,
        num_images=num_images,
        height=8 * side,
        width=8 * side,
        latent_shape=(4, frames, side, side) if frames else (4, side, side),
        video=LAYOUT if frames else None,
        time_ids=(),
        clip_skip=0,
        zero_negative=False,
        batch_cap=cap,
        schedule=schedule,
        arrived=arrived,
        deadline=deadline,
        **serving,
    )
    values = (-value, value) if guidance > 1 else (value,)
    rows = tuple({"text": np.full((2,), v, np.float32)} for v in values)
    answers = Answers()
    name = name or f"request-{next(_NAMES)}"

    return Request(name, settings, rows, table(settings), answers.send, answers.fail), answers


def predict(latents, timesteps, conditioning):
    """A denoiser: each row's output depends on all inputs of that row."""
    by_row = (-1, *[1] * (latents.ndim - 1))
    text = conditioning["text"].mean(axis=1).reshape(by_row)
    return np.tanh(latents + 0.3 * text) * (0.5 + timesteps.reshape(by_row) / 1000)


class Bench:
    """A batcher with a manual clock that records the rows of every call."""

    def __init__(self, capacity=64, *, held=False):
        self.now, self.rows, self.sides, self.failing = 0.0, [], [], False
        self.step_seconds = 0.0
        self.batcher = Batcher(self.predict, capacity, clock=lambda: self.now, held=held)

    def predict(self, latents, timesteps, conditioning):
        self.now += self.step_seconds
        self.rows.append(len(latents))
        self.sides.append(latents.shape[-1])
        if self.failing:
            raise ModelFailed("sd3_transformer: out of memory")
        return predict(latents, timesteps, conditioning)

    def submit(self, **settings):
        built, answers = request(arrived=self.now, **settings)
        self.batcher.submit(built)
        return answers

    def run(self):
        while len(self.batcher):
            self.batcher.step()
