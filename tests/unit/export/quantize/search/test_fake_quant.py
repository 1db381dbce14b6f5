"""Fake-quantized layers, compared with integer arithmetic, and every kind of UNet."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from stepwise.export.errors import QuantizationError
from stepwise.export.loading.mapped_weights import Addition, Stored, add, as_stored
from stepwise.export.quantize.calibration.activation_ranges import (
    Activation,
    Clipping,
    Range,
    activations,
)
from stepwise.export.quantize.calibration.bos_token import FirstToken, first_token
from stepwise.export.quantize.calibration.observers import recording
from stepwise.export.quantize.layers import find
from stepwise.export.quantize.plan import Entry
from stepwise.export.quantize.search.fake_quant import Measured, Rounding, quantized
from stepwise.export.quantize.search.metrics import noise
from stepwise.export.quantize.search.weight_rounding import encode
from tests.unit.export.quantize.conftest import feed, make, run

ROUNDING = Rounding(symmetric=False, block=32, outputs=False)
W8A8 = Entry(8, 8)


def minmax(recording, layers):
    return activations(recording, layers, {layer.name: Clipping.MINMAX for layer in layers})


def measure(unet):
    """Ranges and the first token from two batches at two steps."""
    layers = find(unet)
    with recording(unet, layers) as recorder:
        for seed in (1, 2):
            recorder.timestep = 500.0 * seed
            run(unet, *feed(seed=seed))
    texts = feed()[2].numpy()
    ranges = minmax(recorder.found, layers)
    return Measured(ranges, first_token(unet, layers, texts))


def everywhere(layers, entry=W8A8):
    return {layer.name: entry for layer in layers}


def decibels(unet, measured, inputs, entry=W8A8):
    """Signal to noise, in decibels, of predictions with all layers quantized."""
    layers = find(unet)
    expected = run(unet, *inputs).numpy()
    with quantized(unet, layers, everywhere(layers, entry), measured, ROUNDING):
        got = run(unet, *inputs).numpy()
    return -10 * np.log10(noise(got, expected))


def seen(unet, layer, measured, inputs, entry=W8A8, rounding=ROUNDING):
    """A layer's input and output while only this layer is quantized."""
    kept = []
    module = unet.get_submodule(layer.name)
    hook = module.register_forward_hook(lambda _, given, output: kept.append((given[0], output)))
    try:
        with quantized(unet, [layer], {layer.name: entry}, measured, rounding):
            run(unet, *inputs)
    finally:
        hook.remove()
    return kept[0]


def levels(values, found, symmetric):
    """An input as numpy integers relative to the zero point, and the step of one level."""
    if symmetric:
        step = found.symmetric_step
        return np.clip(np.round(values.numpy() / step), -127, 127), step
    codes = np.clip(np.round(values.numpy() / found.step) + found.zero, 0, 255)
    return codes - found.zero, found.step


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_linear_layer_matches_integer_arithmetic(sd15, symmetric):
    measured, rounding = measure(sd15), Rounding(symmetric, 32, False)
    layer = next(layer for layer in find(sd15) if layer.name.endswith("ff.net.2"))
    given, got = seen(sd15, layer, measured, feed(), rounding=rounding)
    module = sd15.get_submodule(layer.name)
    codes, step = levels(given, measured.activations[layer.name].inputs[0], symmetric)
    weight = encode(module.weight, 8)
    product = codes.astype(np.int64) @ weight.codes.flatten(1).numpy().astype(np.int64).T
    expected = product * step * weight.scales.flatten().numpy() + module.bias.detach().numpy()
    assert np.abs(got.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_split_shortcut_is_the_sum_of_two_convolutions(sd15):
    measured = measure(sd15)
    layer = next(layer for layer in find(sd15) if layer.split)
    given, got = seen(sd15, layer, measured, feed())
    module, ranges = sd15.get_submodule(layer.name), measured.activations[layer.name].inputs
    halves = (slice(0, layer.split), slice(layer.split, None))
    expected = module.bias.detach()[:, None, None]
    for half, found in zip(halves, ranges, strict=True):
        codes, step = levels(given[:, half], found, symmetric=False)
        weight = encode(module.weight[:, half], 8)
        numbers = weight.codes.flatten(1)[..., None, None].double()
        product = functional.conv2d(torch.from_numpy(codes).double(), numbers)
        expected = expected + product * step * weight.scales.flatten()[:, None, None]
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_four_bits_have_a_scale_for_each_block(sd15):
    measured = measure(sd15)
    layer = next(layer for layer in find(sd15) if layer.name.endswith("ff.net.2"))
    given, got = seen(sd15, layer, measured, feed(), Entry(4, 16))
    module = sd15.get_submodule(layer.name)
    expected = functional.linear(given, encode(module.weight, 4, 32).values(), module.bias)
    assert torch.equal(got, expected)


def test_outputs_of_convolutions_are_rounded_if_the_runtime_does_so(sd15):
    measured = measure(sd15)
    layer = find(sd15)[0]
    _, got = seen(sd15, layer, measured, feed(), rounding=Rounding(False, 32, True))
    found = measured.activations[layer.name].output
    codes = got / found.step
    print(f"{float((codes - codes.round()).abs().max()):.1e} from whole numbers")
    assert float((codes - codes.round()).abs().max()) <= 1e-3
    assert len(codes.unique()) <= 256


def test_the_first_token_is_exact_and_does_not_widen_the_range_of_others(sd15):
    measured = measure(sd15)
    layer = next(layer for layer in find(sd15) if layer.begins_alike)
    given, got = seen(sd15, layer, measured, feed())
    expected = functional.linear(given, sd15.get_submodule(layer.name).weight)
    assert torch.allclose(got[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)
    rest = noise(got[:, 1:].numpy(), expected[:, 1:].numpy())
    less = [type(layer)(layer.name, layer.shape, layer.group)]
    with recording(sd15, less) as recorder:
        run(sd15, *feed())
    ranges = minmax(recorder.found, less)
    _, without = seen(sd15, less[0], Measured(ranges, measured.first), feed())
    worse = noise(without[:, 1:].numpy(), expected[:, 1:].numpy())
    print(f"noise of the other tokens {rest:.2e}, if the first is quantized too {worse:.2e}")
    assert worse > 100 * rest


def test_a_row_with_another_first_token_is_computed(sd15):
    """A missing negative prompt is zeros, in one batch with a prompt."""
    measured = measure(sd15)
    layer = next(layer for layer in find(sd15) if layer.begins_alike)
    latents, timesteps, texts = feed()
    texts[0] = 0.0
    _, got = seen(sd15, layer, measured, (latents, timesteps, texts))
    assert not got[0].any()
    assert np.allclose(got[1, 0], measured.first.outputs[layer.name], rtol=1e-5)


def test_other_rows_of_a_batch_change_nothing(sd15):
    measured, layers = measure(sd15), find(sd15)
    latents, timesteps, texts = feed(rows=3)
    with quantized(sd15, layers, everywhere(layers), measured, ROUNDING):
        expected = run(sd15, latents, timesteps, texts)[1]
        latents[::2], texts[::2] = 9 * latents[::2], -3 * texts[::2]
        got = run(sd15, latents, timesteps, texts)
    assert torch.equal(got[1], expected)
    assert not torch.equal(got[0], expected)


# Decibels; a layer with wrong arithmetic leaves less than 5.
FLOOR = 15
KINDS = {
    "sd15": lambda: make(),
    "sdxl": lambda: make(use_linear_projection=True, transformer_layers_per_block=2),
    "fp16 weights, stored": lambda: stored(make()),
    "fp16": lambda: make().half(),
    "LoRA": lambda: with_lora(make()),
    "no mid block": lambda: make(mid_block_type=None),
}


def stored(unet):
    unet.half()
    as_stored(unet)
    assert isinstance(unet.conv_in.weight, Stored)
    return unet


def with_lora(unet):
    for layer in find(unet):
        if layer.name.endswith(("attn1.to_q", "attn2.to_k")):
            out, inputs = layer.shape
            addition = Addition(torch.randn(out, 2), torch.randn(2, inputs), 0.1)
            add(unet.get_submodule(layer.name), addition)
    return unet


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_unet_can_be_quantized(kind):
    torch.manual_seed(0)
    unet = KINDS[kind]()
    before = run(unet, *feed())
    found = decibels(unet, measure(unet), feed())
    print(f"{kind}: {found:.1f} dB, at least {FLOOR}")
    assert found >= FLOOR
    assert torch.equal(run(unet, *feed()), before), "the model was changed"


def test_a_lora_is_quantized_with_its_layer():
    torch.manual_seed(0)
    plain, fused = make(), with_lora(make())
    layer = next(layer for layer in find(fused) if layer.name.endswith("attn2.to_k"))
    first = measure(fused).first.outputs[layer.name]
    assert not np.allclose(first, measure(plain).first.outputs[layer.name], rtol=0.01)
    _, got = seen(fused, layer, measure(fused), feed(), Entry(8, 16))
    assert np.allclose(got[0, 0], first, rtol=1e-5)


def test_a_compiled_model_is_quantized_too(sd15):
    measured, layers = measure(sd15), find(sd15)
    with quantized(sd15, layers, everywhere(layers), measured, ROUNDING):
        expected = run(sd15, *feed())
    torch.compiler.reset()
    compiled = torch.compile(sd15, backend="eager")
    plain = run(compiled, *feed())
    assert measure(compiled).activations == measured.activations
    with quantized(compiled, layers, everywhere(layers), measured, ROUNDING):
        assert torch.equal(run(compiled, *feed()), expected)
    assert torch.equal(run(compiled, *feed()), plain)
    torch.compiler.reset()


def test_a_second_model_has_its_own_ranges():
    """The second model has another shape and is measured while the first is quantized."""
    first, second = make(), make(seed=3, block_out_channels=(32, 96))
    measured = measure(first)
    layers = find(first)
    alone = decibels(second, measure(second), feed(seed=5))
    with quantized(first, layers, everywhere(layers), measured, ROUNDING):
        assert decibels(second, measure(second), feed(seed=5)) == alone
    assert alone >= FLOOR


def test_a_custom_forward_of_a_module_is_restored(sd15):
    module = sd15.conv_in
    module.forward = own = lambda inputs: torch.zeros(len(inputs), 32, 8, 8)
    layer = find(sd15)[0]
    found = {layer.name: Activation((Range(-1.0, 1.0),), Range(-1.0, 1.0))}
    measured = Measured(found, FirstToken(np.zeros(48, np.float32), {}))
    with quantized(sd15, [layer], {layer.name: W8A8}, measured, ROUNDING):
        assert module.forward is not own
    assert module.forward is own


def test_other_models_are_refused():
    with (
        pytest.raises(QuantizationError, match="got a Linear; MixDQ is for UNets"),
        quantized(torch.nn.Linear(2, 2), [], {}, Measured({}, None), ROUNDING),
    ):
        pass
