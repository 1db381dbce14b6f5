"""The diffusers scheduler that each sampler must match, by prediction type and timestep spacing.

A row has a sampler's name, the diffusers class, and its arguments in addition to the checkpoint's
config. diffusers has no finite and correct result for the samplers in ``EXACT``;
test_exact_flow.py compares those with exact solutions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import diffusers

Arguments = dict[str, Any]

STEPS = (1, 2, 3, 7, 20, 50)
# With one step, diffusers' grid is timestep 0, the end of sampling; ours is the first timestep.
ONE_IS_THE_END = STEPS[1:]
# diffusers' x / alpha starts near 4096; subtracting 4096 from it leaves few digits of float32.
FEW_ARE_INEXACT = STEPS[3:]

# Steps with the last row compared, and with it left out. diffusers' DEIS divides by the first
# alpha, 0.0002 with a shift of 5.5, so its first rows have few digits.
SMALL_ALPHA = (STEPS, STEPS[2:])

# As in the scheduler folders of Stable Diffusion 1.5, SDXL and SDXL-Turbo.
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SDE_3 = SDE | {"solver_order": 3}
DPM, UNIPC, DEIS = (
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
)
EULER, ANCESTRAL, HEUN, DDIM, LCM = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DDIMScheduler",
    "LCMScheduler",
)

# Sampler, class, arguments, grids, steps on "linspace". Each runs with epsilon and v prediction.
DIFFUSIONS: tuple[tuple[str, str, Arguments, tuple[str, ...], tuple[int, ...]], ...] = (
    ("euler", EULER, {}, ("linspace", "leading", "trailing"), ONE_IS_THE_END),
    ("euler_karras", EULER, KARRAS, ("linspace", "leading"), ONE_IS_THE_END),
    ("euler_exponential", EULER, EXPONENTIAL, ("linspace", "leading"), ONE_IS_THE_END),
    ("euler_ancestral", ANCESTRAL, {}, ("linspace", "leading", "trailing"), ONE_IS_THE_END),
    ("heun", HEUN, {}, ("linspace", "leading", "trailing"), ONE_IS_THE_END),
    ("heun_karras", HEUN, KARRAS, ("linspace", "leading"), ONE_IS_THE_END),
    ("ddim", DDIM, {}, ("linspace", "leading", "trailing"), ONE_IS_THE_END),
    ("dpmpp_2m", DPM, {}, ("linspace", "leading", "trailing"), STEPS),
    ("dpmpp_2m_karras", DPM, KARRAS, ("linspace",), STEPS),
    ("dpmpp_2m_exponential", DPM, EXPONENTIAL, ("linspace",), STEPS),
    ("dpmpp_2m_sde", DPM, SDE, ("linspace", "leading", "trailing"), STEPS),
    ("dpmpp_2m_sde_karras", DPM, SDE | KARRAS, ("linspace",), STEPS),
    ("dpmpp_3m_sde", DPM, SDE_3, ("linspace", "leading", "trailing"), STEPS),
    ("dpmpp_3m_sde_karras", DPM, SDE_3 | KARRAS, ("linspace",), STEPS),
    ("dpmpp_3m_sde_exponential", DPM, SDE_3 | EXPONENTIAL, ("linspace",), STEPS),
    ("unipc", UNIPC, {}, ("linspace", "leading", "trailing"), STEPS),
    ("unipc_karras", UNIPC, KARRAS, ("linspace",), STEPS),
    ("deis", DEIS, {}, ("linspace", "leading", "trailing"), STEPS),
    # With one step, diffusers goes from the highest noise level to itself.
    ("deis_karras", DEIS, KARRAS, ("linspace",), STEPS[1:]),
    ("lcm", LCM, {}, ("leading",), STEPS),
)
# Samplers that replace the checkpoint's grid by their own.
TRAILING = (
    ("euler_trailing", EULER),
    ("euler_ancestral_trailing", ANCESTRAL),
    ("ddim_trailing", DDIM),
)
# v prediction with zero terminal SNR (arXiv 2305.08891): sampler, class, arguments, steps.
ZERO_SNR: tuple[tuple[str, str, Arguments, tuple[int, ...]], ...] = (
    ("euler", EULER, {}, FEW_ARE_INEXACT),
    ("euler_ancestral", ANCESTRAL, {}, FEW_ARE_INEXACT),
    ("ddim", DDIM, {}, STEPS),
    ("dpmpp_2m", DPM, {}, STEPS),
    ("dpmpp_2m_sde", DPM, SDE, STEPS),
    ("unipc", UNIPC, {}, STEPS),
    ("lcm", LCM, {}, STEPS),
)

FLOW_EULER, FLOW_HEUN, FLOW_LCM = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
# Each runs with static shifts and, if the class has it, a dynamic one. DDIM on a flow is Euler.
FLOWS: tuple[tuple[str, str, Arguments], ...] = (
    ("euler", FLOW_EULER, {}),
    ("euler_karras", FLOW_EULER, KARRAS),
    ("euler_exponential", FLOW_EULER, EXPONENTIAL),
    ("ddim", FLOW_EULER, {}),
    ("heun", FLOW_HEUN, {}),
    ("dpmpp_2m", DPM, {}),
    ("dpmpp_2m_sde", DPM, SDE),
    ("dpmpp_3m_sde", DPM, SDE_3),
    ("unipc", UNIPC, {}),
    ("deis", DEIS, {}),
    ("lcm", FLOW_LCM, {}),
)
SHIFTS = (1.0, 3.0, 5.5)
# diffusers has no flow class (ancestral), or its ramp gives NaN or the levels of a diffusion.
EXACT = (
    "euler_ancestral",
    "heun_karras",
    "dpmpp_2m_karras",
    "dpmpp_2m_exponential",
    "dpmpp_2m_sde_karras",
    "dpmpp_3m_sde_karras",
    "dpmpp_3m_sde_exponential",
    "unipc_karras",
    "deis_karras",
)


@dataclass(frozen=True)
class Oracle:
    """``sampler`` on ``config`` must match ``scheduler(**arguments)``.

    ``rows_left_out`` is the number of last rows that diffusers gets wrong.
    """

    sampler: str
    config: Arguments
    scheduler: str
    arguments: Arguments
    steps: tuple[int, ...] = STEPS
    rows_left_out: int = 0

    def __str__(self) -> str:
        kind = self.config.get("prediction_type", f"shift {self.config.get('shift', 'dynamic')}")
        zero = ", zero SNR" if "rescale_betas_zero_snr" in self.config else ""
        grid = self.config.get("timestep_spacing")
        return f"{self.sampler}, {kind}{f', {grid}' if grid else ''}{zero}"

    def build(self, steps: int) -> Any:
        """The scheduler with its timesteps set."""
        scheduler = getattr(diffusers, self.scheduler)(**self.arguments)
        scheduler.set_timesteps(steps, **{k: v for k, v in self.config.items() if k == "mu"})
        return scheduler


def oracles() -> list[Oracle]:
    """Every row of the tables above."""
    return [*_diffusions(), *_flows()]


def _diffusions() -> Iterator[Oracle]:
    for prediction in ("epsilon", "v_prediction"):
        for sampler, scheduler, extra, grids, on_linspace in DIFFUSIONS:
            for grid in grids:
                steps = on_linspace if grid == "linspace" else STEPS
                yield diffusion(sampler, scheduler, prediction, grid, extra, steps)
        for sampler, scheduler in TRAILING:
            config = _config(scheduler, prediction, "leading")
            yield Oracle(sampler, config, scheduler, _arguments(config, "trailing"))
    for sampler, scheduler, extra, steps in ZERO_SNR:
        zero = {"rescale_betas_zero_snr": True}
        yield diffusion(sampler, scheduler, "v_prediction", "trailing", extra, steps, zero)


def _flows() -> Iterator[Oracle]:
    for sampler, scheduler, extra in FLOWS:
        # The last step of diffusers' DEIS keeps the noise level instead of reaching zero.
        left_out = 1 if scheduler == DEIS else 0
        for shift in SHIFTS:
            config = {"_class_name": FLOW_EULER, "shift": shift}
            arguments = extra | _shift(scheduler, {"shift": shift}, {"flow_shift": shift})
            yield Oracle(sampler, config, scheduler, arguments, SMALL_ALPHA[left_out], left_out)
        if scheduler != FLOW_HEUN:
            dynamic = {"use_dynamic_shifting": True}
            config = {"_class_name": FLOW_EULER, "mu": 1.0, **dynamic}
            arguments = extra | _shift(scheduler, dynamic, dynamic)
            yield Oracle(sampler, config, scheduler, arguments, SMALL_ALPHA[left_out], left_out)


def diffusion(
    sampler: str,
    scheduler: str,
    prediction: str,
    grid: str,
    extra: Arguments,
    steps: tuple[int, ...],
    more: Arguments | None = None,
) -> Oracle:
    """An oracle for a checkpoint with the scheduler's class; ``more`` is added to its config."""
    config = _config(scheduler, prediction, grid) | (more or {})
    return Oracle(sampler, config, scheduler, _arguments(config, grid) | extra, steps)


def _config(scheduler: str, prediction: str, grid: str) -> Arguments:
    known = {"_class_name": scheduler, **BETAS, "prediction_type": prediction}
    return known if scheduler == LCM else known | {"timestep_spacing": grid, "steps_offset": 1}


def _arguments(config: Arguments, grid: str) -> Arguments:
    unclipped = {"clip_sample": False} if config["_class_name"] == DDIM else {}
    grids = {"timestep_spacing": grid} if "timestep_spacing" in config else {}
    return {key: value for key, value in config.items() if key != "_class_name"} | unclipped | grids


def _shift(scheduler: str, own: Arguments, multistep: Arguments) -> Arguments:
    if scheduler not in (DPM, UNIPC, DEIS):
        return own
    return {"use_flow_sigmas": True, "prediction_type": "flow_prediction", **multistep}
