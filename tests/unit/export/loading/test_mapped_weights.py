import pytest
import torch
from torch import nn

from stepwise.export.loading.mapped_weights import Addition, Stored, add, as_stored, faked

TYPES = [torch.float16, torch.bfloat16, torch.float64]


def layer(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)).to(dtype)


@torch.no_grad()
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_stored_weights_compute_in_float32_without_a_copy(dtype):
    plain, stored, values = layer(dtype), layer(dtype), torch.randn(3, 6)
    kept = [weight.data_ptr() for weight in stored.parameters()]
    as_stored(stored)
    assert {weight.dtype for weight in stored.parameters()} == {torch.float32}
    assert [weight.data_.data_ptr() for weight in stored.parameters()] == kept
    assert torch.equal(stored(values), plain.float()(values))


def test_shared_weights_stay_shared():
    model = nn.ModuleDict({"one": nn.Linear(3, 3), "other": nn.Linear(3, 3)}).half()
    model["other"].weight = model["one"].weight
    as_stored(model)
    assert model["other"].weight is model["one"].weight
    with faked(model):
        assert model["other"].weight is model["one"].weight


@torch.no_grad()
def test_additions_are_computed_in_float32():
    model = nn.Linear(6, 4).half()
    up, down, plain = torch.randn(4, 2), torch.randn(2, 6), model.weight.float()
    as_stored(model)
    add(model, Addition(up, down, 0.5))
    add(model, Addition(up, down, 0.25))
    assert isinstance(model.weight, Stored)
    torch.testing.assert_close(model.weight + 0, plain + 0.75 * up @ down)


def test_faked_weights_are_restored():
    model = layer(torch.float16)
    as_stored(model)
    before = dict(model.named_parameters())
    with faked(model):
        assert not any(isinstance(weight, Stored) for weight in model.parameters())
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(weight is before[name] for name, weight in model.named_parameters())
