"""Detection of a pipeline that another one starves."""

from benchmarks.commands.colocated import LEAST_SHARE, starved


def test_a_pipeline_that_keeps_too_little_is_a_failure():
    assert starved({"sd3": 0.55, "sdxl_turbo": LEAST_SHARE}) == []
    (failure,) = starved({"sd3": 0.8, "sdxl_turbo": LEAST_SHARE - 0.01})
    assert failure.startswith("sdxl_turbo keeps 0.24 of its speed")
