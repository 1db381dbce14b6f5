"""Validates diffusers scheduler configs."""

from typing import Any

from stepwise.sampling.schedule import PREDICTIONS, Config, SamplerError

_FLOW_CLASSES = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
_CLASSES = (
    *_FLOW_CLASSES,
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
# Unsupported options that change the picture, with their values that have no effect. Options that
# the request's sampler replaces, such as use_karras_sigmas and solver_order, are not listed.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "clip_sample": (False,),
    "interpolation_type": ("linear",),
    "invert_sigmas": (False,),
    "lambda_min_clipped": (None, -float("inf"), "-Infinity"),
    "shift_terminal": (None,),
    "sigma_max": (None,),
    "sigma_min": (None,),
    "steps_offset": (0, 1),
    "stochastic_sampling": (False,),
    "thresholding": (False,),
    "timestep_scaling": (10.0,),
    "timestep_type": ("discrete",),
    "trained_betas": (None,),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large"),
}
_BETA_SCHEDULES = ("linear", "scaled_linear")
_GRIDS = ("leading", "linspace", "trailing")


def check(config: Config) -> None:
    """Raise SamplerError if no sampler supports a checkpoint with this scheduler config."""
    name = config.get("_class_name", _FLOW_CLASSES[0])
    if name not in _CLASSES:
        raise SamplerError(f"scheduler: got {name}; allowed are {', '.join(_CLASSES)}")
    allowed = dict(_PLAIN, prediction_type=tuple(PREDICTIONS))
    if not is_flow(config):
        allowed |= {"beta_schedule": _BETA_SCHEDULES, "timestep_spacing": _GRIDS}
    for option, values in allowed.items():
        if option in config and config[option] not in values:
            raise SamplerError(
                f"scheduler: got {option}={config[option]!r}; allowed are "
                + " or ".join(repr(value) for value in values)
            )
    if config.get("use_dynamic_shifting") and "mu" not in config:
        raise SamplerError(
            "scheduler: got use_dynamic_shifting without mu; set mu to the checkpoint's value "
            "(EasyAnimate's is 1), or use a static shift"
        )


def is_flow(config: Config) -> bool:
    """Whether the checkpoint was trained by flow matching, on straight lines from data to noise."""
    return (
        config.get("_class_name", _FLOW_CLASSES[0]) in _FLOW_CLASSES
        or config.get("prediction_type") == "flow_prediction"
    )
