"""A stopped training run resumes with the same result as an uninterrupted one."""

import pytest
import torch
from torch import nn

from miniatures.training import Recipe, fit

RECIPE = Recipe("line", steps=20, rate=0.1)


def train(folder, stop_at=1.0):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(done):
        if done >= stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 3)
        error = ((model(inputs) - inputs.sum(dim=1, keepdim=True)) ** 2).mean()
        return error, error.item()

    return model, fit(RECIPE, model, loss, folder)


def test_a_stopped_run_resumes(tmp_path):
    whole, whole_average = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop_at=0.5)
    stopped, stopped_average = train(tmp_path / "stopped")
    assert torch.equal(whole.weight, stopped.weight)
    assert torch.equal(whole_average.weight, stopped_average.weight)


def test_a_finished_run_is_not_repeated(tmp_path):
    _, average = train(tmp_path)
    _, again = train(tmp_path, stop_at=0.0)
    assert torch.equal(average.weight, again.weight)
    assert not torch.equal(average.weight, train(tmp_path / "other", stop_at=2.0)[0].weight)
