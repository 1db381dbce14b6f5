"""Supported scheduler configs, and schedules that have no oracle in diffusers."""

import numpy as np
import pytest

from stepwise.sampling.samplers import SAMPLERS, table
from stepwise.sampling.schedules import SamplerError, check

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
SDXL_TURBO = SDXL | {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "interpolation_type": "linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "timestep_spacing": "trailing",
    "trained_betas": None,
}
SD3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "shift_terminal": None}


@pytest.mark.parametrize("config", [SDXL, SDXL_TURBO, SD3, SDXL | {"_class_name": "PNDMScheduler"}])
def test_configs_of_known_checkpoints_are_supported(config):
    check(config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (SDXL | {"_class_name": "EDMEulerScheduler"}, ["got EDMEulerScheduler", "PNDMScheduler"]),
        (SDXL | {"prediction_type": "sample"}, ["prediction_type='sample'", "'epsilon' or"]),
        (SDXL | {"beta_schedule": "squaredcos_cap_v2"}, ["beta_schedule=", "'scaled_linear'"]),
        (SDXL | {"timestep_spacing": "even"}, ["timestep_spacing='even'", "'trailing'"]),
        (SDXL | {"clip_sample": True}, ["clip_sample=True", "False"]),
        (SDXL | {"trained_betas": [0.1]}, ["trained_betas=[0.1]", "None"]),
        (SDXL | {"use_beta_sigmas": True}, ["use_beta_sigmas=True"]),
        (SD3 | {"invert_sigmas": True}, ["invert_sigmas=True"]),
        (SD3 | {"shift_terminal": 0.1}, ["shift_terminal=0.1"]),
        (SD3 | {"stochastic_sampling": True}, ["stochastic_sampling=True"]),
        (SD3 | {"use_dynamic_shifting": True}, ["use_dynamic_shifting without mu", "static shift"]),
    ],
)
def test_the_error_of_an_unsupported_config_lists_supported_values(config, words):
    with pytest.raises(SamplerError) as error:
        check(config)
    message = str(error.value)
    assert message.startswith("scheduler: got")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("sampler", "config", "steps", "says"),
    [
        ("euler_trailing", SD3, 4, "'trailing' spacing needs a diffusion"),
        ("lcm", SDXL, 51, "51 steps are more than the 50"),
        ("euler", SDXL | {"num_train_timesteps": 10}, 11, "11 steps are more than the 10"),
        ("ddim", SDXL_TURBO | {"rescale_betas_zero_snr": True}, 4, "4 steps are not finite"),
    ],
)
def test_a_sampler_that_does_not_fit_the_schedule_is_refused(sampler, config, steps, says):
    with pytest.raises(SamplerError, match=says):
        table(sampler, config, steps)


@pytest.mark.parametrize("config", [SDXL, SDXL_TURBO, SD3], ids=["sdxl", "turbo", "sd3"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_table_has_as_many_rows_as_steps(sampler, config):
    """Differs from diffusers, which has 62 rows for 61 trailing steps, the last at timestep -1."""
    if "shift" in config and sampler.endswith("_trailing"):
        return
    for steps in (1, 2, 14, 15, 50, 61, 100):
        if sampler == "lcm" and "shift" not in config and steps > 50:
            continue
        rows = table(sampler, config, steps)
        assert len(rows) == (2 * steps - 1 if sampler.startswith("heun") else steps)
        assert {len(values) for values in vars(rows).values()} == {len(rows)}
        assert np.all(np.diff(rows.timestep) <= 0)
        assert rows.timestep[-1] >= 0


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "euler_ancestral"])
def test_one_step_on_a_linear_grid_starts_at_the_noisy_end(sampler):
    """numpy's grid of one number, which diffusers uses, has only the other end: timestep 0."""
    assert table(sampler, SDXL | {"timestep_spacing": "linspace"}, 1).timestep.tolist() == [999]


def test_turbo_in_one_step_is_the_estimate_from_noise():
    rows = table("euler_ancestral", SDXL_TURBO, 1)
    assert rows.timestep.tolist() == [999]
    assert rows.M[0, 0].tolist() == [0, 0, 1, 0, 0, 0]


def test_a_dynamic_shift_is_e_to_the_mu():
    dynamic = SD3 | {"use_dynamic_shifting": True, "mu": np.log(3.0)}
    dynamic.pop("shift")
    sigmas, static = (table("dpmpp_2m", config, 9).b for config in (dynamic, SD3))
    assert np.allclose(sigmas, static, rtol=1e-6)
    linear = dynamic | {"mu": 3.0, "time_shift_type": "linear"}
    assert np.allclose(table("dpmpp_2m", linear, 9).b, static, rtol=1e-6)


def test_the_sampler_of_the_request_overrides_the_checkpoints_config():
    karras = SDXL | {"use_karras_sigmas": True, "solver_order": 3, "algorithm_type": "dpmsolver"}
    for values, plain in zip(
        vars(table("dpmpp_2m", karras, 5)).values(),
        vars(table("dpmpp_2m", SDXL, 5)).values(),
        strict=True,
    ):
        assert np.array_equal(values, plain)
