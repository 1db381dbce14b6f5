"""A request to denoise, and the pictures that it asks for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines import noise
from pipelines.conditioning import Conditioning
from pipelines.errors import RequestError
from pipelines.events import Event
from pipelines.samplers import NOISE, SAMPLERS, Table, X
from pipelines.schedules import flow
from pipelines.settings import Settings

Float32 = npt.NDArray[np.float32]
# Pictures with the same bucket can share a denoiser call: latent shape, then text shapes.
Bucket = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Request:
    """One request: its settings, its conditioning and where its answers go.

    ``slots`` holds the conditioning of each row that a picture takes in a denoiser call: negative
    and positive with guidance, the positive alone without. ``send`` takes each event, with the
    latents (channels, height, width) if it is a result, and whether it is the last; ``fail``
    takes an error and ends the request.
    """

    settings: Settings
    slots: tuple[Conditioning, ...]
    table: Table
    send: Callable[[Event, Float32 | None, bool], None]
    fail: Callable[[RequestError], None]

    @property
    def bucket(self) -> Bucket:
        """What pictures must have in common to be stacked."""
        return (self.settings.latent_shape, *(v.shape for v in self.slots[0].values()))

    def pictures(self) -> Iterator["Picture"]:
        """The request's pictures, seeds counting up."""
        for index in range(self.settings.num_images):
            yield Picture(self, index)


def table(settings: Settings) -> Table:
    """The sampler table that these settings ask for."""
    return SAMPLERS[settings.sampler](flow(settings.schedule, settings.steps))


@dataclass(eq=False)
class Picture:
    """One picture under way.

    ``state`` is (6, channels, height, width): the columns of a sampler's M. It and ``generator``
    are made when the first step starts, so that waiting pictures cost nothing.
    """

    request: Request
    index: int
    row: int = 0
    started: float | None = None
    told: float = 0.0
    batch_sum: int = 0
    state: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    generator: noise.Generator | None = None

    @property
    def seed(self) -> int:
        """The seed of this picture alone."""
        return self.request.settings.seed + self.index

    @property
    def slots(self) -> int:
        """How many rows of a denoiser call this picture takes."""
        return len(self.request.slots)

    @property
    def finished(self) -> bool:
        """Whether every row of the sampler's table has been applied."""
        return self.row == len(self.request.table)

    def start(self, now: float) -> None:
        """Draw the initial noise; ``now`` is seconds on the queue's clock."""
        shape = self.request.settings.latent_shape
        self.state = np.zeros((NOISE + 1, *shape), np.float32)
        self.generator = noise.Generator(self.seed)
        self.state[X] = self.generator.normal((1, *shape))[0]
        self.started = self.told = now

    def draw_noise(self) -> None:
        """Fill the state's fresh noise if the next row of the table asks for any."""
        if self.generator is not None and self.request.table.M[self.row, :, NOISE].any():
            self.state[NOISE] = self.generator.normal((1, *self.state.shape[1:]))[0]

    def event(self, now: float) -> Event:
        """Where this picture stands at ``now``."""
        settings, started = self.request.settings, self.started or now
        return Event(
            kind="result" if self.finished else "progress",
            index=self.index,
            step=self.row,
            steps=len(self.request.table),
            seed=self.seed,
            queued_ms=1000 * (started - settings.arrived),
            denoising_ms=1000 * (now - started),
            mean_batch=self.batch_sum / max(self.row, 1),
            notes=settings.notes,
        )
