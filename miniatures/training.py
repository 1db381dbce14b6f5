"""One training run: AdamW, one cycle of the learning rate, a moving average, and its state on disk.

A stopped run resumes from its state; a completed run returns the stored average.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

log = logging.getLogger(__name__)

EMA_DECAY = 0.999
SAVE_SECONDS = 180
LOG_STEPS = 100


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of one run; ``name`` is used for its file and in the log.

    ``mixed`` enables torch's autocast to bfloat16 for the loss.
    """

    name: str
    steps: int
    rate: float
    weight_decay: float = 1e-2
    mixed: bool = False


def device() -> torch.device:
    """The GPU if torch finds one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def keep(value: object, path: Path) -> None:
    """Save with torch atomically: an interruption leaves no partial file at ``path``."""
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    partial.replace(path)


class _Run:
    """A model in training, with all state needed to resume."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        self.step = 0
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            learned, lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, recipe.rate, total_steps=recipe.steps, pct_start=0.1
        )

    def save(self, path: Path) -> None:
        parts = ("model", "average", "optimizer", "schedule")
        state = {name: getattr(self, name).state_dict() for name in parts}
        keep({**state, "step": self.step, "random": torch.get_rng_state()}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path)
        for name in ("model", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]
        torch.set_rng_state(state["random"])

    def advance(self, loss: torch.Tensor) -> None:
        """Step the optimizer, then update the moving average."""
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        self.average.update_parameters(self.model)


def fit(
    recipe: Recipe,
    model: nn.Module,
    loss: Callable[[float], tuple[torch.Tensor, float]],
    folder: Path,
) -> nn.Module:
    """Train ``model`` in place; the returned copy holds the moving average of its weights.

    ``loss`` gets the share of completed steps and returns the loss of one batch and the number to
    log. The state is saved as ``folder / "<name>.pt"`` every three minutes, at the end and on an
    exception.
    """
    if recipe.mixed:
        _unfuse(model)
    run, path = _Run(recipe, model), folder / f"{recipe.name}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        run.load(path)
    try:
        _train(run, recipe, loss, path)
    finally:
        run.save(path)
    average: nn.Module = run.average.module
    return average.eval()


def _unfuse(model: nn.Module) -> None:
    """Use unfused attention: in bfloat16 the fused gradient is slower than in float32."""
    for part in model.modules():
        if isinstance(part, Attention):
            part.set_processor(AttnProcessor())


def _train(
    run: _Run,
    recipe: Recipe,
    loss: Callable[[float], tuple[torch.Tensor, float]],
    path: Path,
) -> None:
    """Run the remaining steps."""
    shown, saved = 0.0, time.monotonic()
    while run.step < recipe.steps:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.mixed):
            value, number = loss(run.step / recipe.steps)
        run.advance(value)
        shown = 0.98 * shown + 0.02 * number if shown else number
        if run.step % LOG_STEPS == 0 or run.step == recipe.steps:
            log.info("%s step %d of %d: %.5f", recipe.name, run.step, recipe.steps, shown)
        if time.monotonic() - saved > SAVE_SECONDS:
            run.save(path)
            saved = time.monotonic()
