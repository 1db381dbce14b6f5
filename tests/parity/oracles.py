"""Which diffusers scheduler each sampler is held to, by prediction and spacing.

A row is a sampler's word, diffusers' class and what that is given beside the checkpoint's config.
What has no row here has no oracle in diffusers that is finite and right: ``EXACT`` says why, and
``test_exact_flow.py`` holds those samplers to the exact solution.
"""

from dataclasses import dataclass, field
from typing import Any

import diffusers

# As in the scheduler folders of Stable Diffusion 1.5, SDXL and SDXL-Turbo.
BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
SD3 = {**FLOW, "shift": 3.0}
# shift is e when mu is 1; diffusers is told mu when it sets the timesteps.
EASYANIMATE = {**FLOW, "use_dynamic_shifting": True, "mu": 1.0}
SHIFTED = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
KARRAS = {"use_karras_sigmas": True}
EXPONENTIAL = {"use_exponential_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
STEPS = (1, 2, 3, 7, 20, 50)


@dataclass(frozen=True)
class Oracle:
    """``sampler`` on ``config`` is what ``scheduler(**arguments)`` does.

    ``but_last`` is set where diffusers' last step is wrong. ``steps`` are the counts compared.
    """

    sampler: str
    config: dict[str, Any]
    scheduler: str
    arguments: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = STEPS
    but_last: bool = False

    def __str__(self) -> str:
        said = [v for k, v in self.config.items() if k in ("prediction_type", "timestep_spacing")]
        name = self.config.get("shift", "dynamic") if not said else "-".join(said)
        zero = "-zero_snr" if self.config.get("rescale_betas_zero_snr") else ""
        return f"{self.sampler}-{name}{zero}"

    def build(self, steps: int) -> Any:
        """The scheduler with its timesteps set."""
        scheduler = getattr(diffusers, self.scheduler)(**self.arguments)
        mu = {"mu": self.config["mu"]} if "mu" in self.config else {}
        scheduler.set_timesteps(steps, **mu)
        scheduler.set_begin_index(0) if hasattr(scheduler, "set_begin_index") else None
        return scheduler


# Sampler, class, extra arguments: each with a row per prediction and grid.
DIFFUSIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("euler", "EulerDiscreteScheduler", {}),
    ("euler_karras", "EulerDiscreteScheduler", KARRAS),
    ("euler_exponential", "EulerDiscreteScheduler", EXPONENTIAL),
    ("euler_ancestral", "EulerAncestralDiscreteScheduler", {}),
    ("heun", "HeunDiscreteScheduler", {}),
    ("heun_karras", "HeunDiscreteScheduler", KARRAS),
    ("ddim", "DDIMScheduler", {"clip_sample": False}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {}),
    ("dpmpp_2m_karras", "DPMSolverMultistepScheduler", KARRAS),
    ("dpmpp_2m_exponential", "DPMSolverMultistepScheduler", EXPONENTIAL),
    ("dpmpp_2m_sde", "DPMSolverMultistepScheduler", SDE),
    ("dpmpp_2m_sde_karras", "DPMSolverMultistepScheduler", SDE | KARRAS),
    ("dpmpp_3m_sde", "DPMSolverMultistepScheduler", SDE | {"solver_order": 3}),
    ("dpmpp_3m_sde_karras", "DPMSolverMultistepScheduler", SDE | KARRAS | {"solver_order": 3}),
    (
        "dpmpp_3m_sde_exponential",
        "DPMSolverMultistepScheduler",
        SDE | EXPONENTIAL | {"solver_order": 3},
    ),
    ("unipc", "UniPCMultistepScheduler", {}),
    ("unipc_karras", "UniPCMultistepScheduler", KARRAS),
    ("deis", "DEISMultistepScheduler", {}),
    ("deis_karras", "DEISMultistepScheduler", KARRAS),
    ("lcm", "LCMScheduler", {}),
)
# What a word's own grid, or the lack of one, leaves of the three.
GRIDS = {"lcm": ("leading",), **{name: ("linspace",) for name, _, _ in DIFFUSIONS if "_karras" in name}}
