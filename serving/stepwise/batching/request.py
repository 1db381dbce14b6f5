"""A denoising request and its pictures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stepwise.description.errors import RequestError
from stepwise.description.family import Conditioning, Family
from stepwise.description.fields import Array
from stepwise.description.settings import RANDOM_SEED, Settings
from stepwise.request.events import Event, Kind
from stepwise.request.response import shrink
from stepwise.sampling import noise, samplers
from stepwise.sampling.samplers import NOISE, Table, X

Float32 = npt.NDArray[np.float32]
# Pictures of the same bucket can share a denoiser call: latent shape, then text shapes.
Bucket = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Summary:
    """How a request ended: times in milliseconds, and the mean number of pictures per step."""

    outcome: str
    queued_ms: float
    denoising_ms: float
    mean_batch: float


Send = Callable[[Event, Float32 | None, Summary | None], None]
Fail = Callable[[RequestError, Summary], None]


@dataclass(frozen=True)
class Request:
    """One request: its settings, its conditioning and its response callbacks.

    A client cancels it by its ``id``. ``row_conditioning`` is the conditioning of each row that a
    picture takes in a denoiser call: negative and positive with guidance, only positive without.
    ``shared`` is the conditioning that all rows of a call share. A picture may be a video, with
    latents (channels, frames, height, width). ``send`` takes each event, latents if the event is a
    preview or a result, and a summary with the last event; ``fail`` takes an error and a summary.
    """

    id: str
    settings: Settings
    row_conditioning: tuple[Conditioning, ...]
    table: Table
    send: Send
    fail: Fail
    shared: Conditioning = field(default_factory=dict)

    @property
    def bucket(self) -> Bucket:
        """The shapes that pictures must share to be stacked."""
        return (self.settings.latent_shape, *(v.shape for v in self.row_conditioning[0].values()))

    @property
    def length(self) -> int:
        """Latent frames: how many times longer a denoiser call takes than for a picture."""
        shape = self.settings.latent_shape
        return shape[1] if self.settings.video else 1

    def pictures(self, now: float = 0.0) -> Iterator["Picture"]:
        """The request's pictures, with seeds counting up; ``now`` is when they begin to wait."""
        for index in range(self.settings.num_images):
            yield Picture(self, index, told=now)


def encoded(
    family: Family,
    request_id: str,
    settings: Settings,
    embeddings: Mapping[str, Array],
    send: Send,
    fail: Fail,
) -> Request:
    """The request to a pipeline of ``family`` with its embeddings."""
    return Request(
        id=request_id,
        settings=settings,
        row_conditioning=family.row_conditioning(embeddings, settings),
        table=table(settings),
        send=send,
        fail=fail,
        shared=family.shared(settings),
    )


def table(settings: Settings) -> Table:
    """The sampler table for these settings."""
    return samplers.table(settings.sampler, settings.schedule, settings.steps)


@dataclass(eq=False)
class Picture:
    """One picture being denoised.

    ``state`` holds six latents, one for each column of a sampler's M. ``state`` and ``generator``
    are created at the first step, so that waiting pictures take no memory. ``denoised`` is the
    current estimate of the final latents, in their shape, if a preview is due.
    """

    request: Request
    index: int
    row: int = 0
    started: float | None = None
    told: float = 0.0
    tellings: int = 0
    batch_sum: int = 0
    state: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    generator: noise.Generator | None = None
    denoised: Float32 | None = None

    @property
    def seed(self) -> int:
        """The seed of this picture alone."""
        seed = self.request.settings.seed + self.index
        # Noise depends on the low 32 bits only.
        return seed if seed != RANDOM_SEED else seed & 0xFFFFFFFF

    @property
    def num_rows(self) -> int:
        """The number of rows that this picture takes in a denoiser call."""
        return len(self.request.row_conditioning)

    @property
    def work(self) -> int:
        """Denoiser rows for the whole picture; a video's rows count once per latent frame."""
        return self.num_rows * len(self.request.table) * self.request.length

    @property
    def finished(self) -> bool:
        """Whether every row of the sampler's table has been applied."""
        return self.row == len(self.request.table)

    @property
    def preview_due(self) -> bool:
        """Whether the next row ends in a preview."""
        every, done = self.request.settings.preview_every, self.row + 1
        return every > 0 and done % every == 0 and done < len(self.request.table)

    def start(self, now: float) -> None:
        """Draw the initial noise; ``now`` is seconds on the queue's clock."""
        settings = self.request.settings
        shape = settings.latent_shape
        self.state = np.zeros((NOISE + 1, *shape), np.float32)
        self.generator = noise.Generator(self.seed)
        self.state[X] = self.generator.normal((1, *shape))[0]
        if settings.video is not None and settings.video.reference_noise:
            # The encoding draws these numbers for the images that the video continues.
            self.generator.skip((1, 3, settings.frames, settings.height, settings.width))
        self.started = self.told = now

    def draw_noise(self) -> None:
        """Fill the state's noise plane if the next row of the table uses fresh noise."""
        if self.generator is not None and self.request.table.M[self.row, :, NOISE].any():
            self.state[NOISE] = self.generator.normal((1, *self.state.shape[1:]))[0]

    def answer(self, now: float) -> tuple[Event, Float32 | None]:
        """The picture's current event, and the latents of a preview or result."""
        if self.finished:
            return self._event("result", now), self.state[X].copy()
        if self.denoised is not None:
            return self._event("preview", now), shrink(self.denoised)
        return self._event("progress", now), None

    def _event(self, kind: Kind, now: float) -> Event:
        settings, started = self.request.settings, self.started or now
        return Event(
            kind=kind,
            index=self.index,
            step=self.row,
            steps=len(self.request.table),
            seed=self.seed,
            queued_ms=1000 * (started - settings.arrived),
            denoising_ms=1000 * (now - started),
            mean_batch=self.batch_sum / max(self.row, 1),
            notes=settings.notes,
            video=None if kind == "progress" else settings.video,
            request=self.request.id,
            member=settings.member,
            silent=kind == "progress" and not settings.progress,
        )
