"""A request to denoise, and the pictures that it asks for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stepwise.description.errors import RequestError
from stepwise.description.family import Conditioning
from stepwise.description.settings import Settings
from stepwise.request.events import Event, Kind
from stepwise.request.response import shrink
from stepwise.sampling import noise, samplers
from stepwise.sampling.samplers import NOISE, Table, X

Float32 = npt.NDArray[np.float32]
# Pictures with the same bucket can share a denoiser call: latent shape, then text shapes.
Bucket = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Summary:
    """How a request ended: times in milliseconds, and the mean number of pictures per step."""

    outcome: str
    queued_ms: float
    denoising_ms: float
    mean_batch: float


@dataclass(frozen=True)
class Request:
    """One request: its settings, its conditioning and where its answers go.

    ``id`` names it for those who want to cancel it. ``row_conditioning`` holds the conditioning of
    each row of a picture in a denoiser call: negative and positive with guidance, the positive
    alone without, and ``shared`` what all rows of a call have in common. A picture may be a video,
    whose latents are (channels, frames, height, width). ``send`` takes each event, with latents if
    it is a preview or a result, and with the last one how the request ended; ``fail`` takes an
    error and the same. ``disconnected`` says whether the caller is gone, from any thread.
    """

    id: str
    settings: Settings
    row_conditioning: tuple[Conditioning, ...]
    table: Table
    send: Callable[[Event, Float32 | None, Summary | None], None]
    fail: Callable[[RequestError, Summary], None]
    disconnected: Callable[[], bool] = lambda: False
    shared: Conditioning = field(default_factory=dict)

    @property
    def bucket(self) -> Bucket:
        """What pictures must have in common to be stacked."""
        return (self.settings.latent_shape, *(v.shape for v in self.row_conditioning[0].values()))

    @property
    def length(self) -> int:
        """Frames of latents: how much longer a denoiser call takes than for a picture."""
        shape = self.settings.latent_shape
        return shape[1] if self.settings.video else 1

    def pictures(self) -> Iterator["Picture"]:
        """The request's pictures, seeds counting up."""
        for index in range(self.settings.num_images):
            yield Picture(self, index)


def table(settings: Settings) -> Table:
    """The sampler table that these settings ask for."""
    return samplers.table(settings.sampler, settings.schedule, settings.steps)


@dataclass(eq=False)
class Picture:
    """One picture under way.

    ``state`` holds six latents: the columns of a sampler's M. It and ``generator`` are made when
    the first step starts, so that waiting pictures cost nothing. ``denoised`` is what the picture
    is heading for, of the shape of its latents, where a preview is due.
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
        return self.request.settings.seed + self.index

    @property
    def num_rows(self) -> int:
        """How many rows of a denoiser call this picture takes."""
        return len(self.request.row_conditioning)

    @property
    def work(self) -> int:
        """How many denoiser rows the whole picture takes, a video's once for each frame."""
        return self.num_rows * len(self.request.table) * self.request.length

    @property
    def finished(self) -> bool:
        """Whether every row of the sampler's table has been applied."""
        return self.row == len(self.request.table)

    @property
    def preview_due(self) -> bool:
        """Whether the row that comes next ends in a preview."""
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
            # Drawn next, for the images that the video continues.
            self.generator.skip((1, 3, settings.frames, settings.height, settings.width))
        self.started = self.told = now

    def draw_noise(self) -> None:
        """Fill the state's fresh noise if the next row of the table asks for any."""
        if self.generator is not None and self.request.table.M[self.row, :, NOISE].any():
            self.state[NOISE] = self.generator.normal((1, *self.state.shape[1:]))[0]

    def answer(self, now: float) -> tuple[Event, Float32 | None]:
        """Where this picture stands at ``now``, and the latents that show it, if any do."""
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
        )
