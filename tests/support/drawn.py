"""Records value ranges of every layer and UNet calls while the SDXL-Turbo miniature generates."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline

from miniatures.captions import TRAINING
from stepwise.export.quantize.calibration.activation_ranges import Activation, Range
from stepwise.export.quantize.calibration.bos_token import FirstToken
from stepwise.export.quantize.layers import Layer, find

PICTURES, STEPS = 8, (1, 4)


@dataclass(frozen=True)
class Drawn:
    """The recording; ``calls`` are pairs of the UNet's inputs by name and its output."""

    layers: tuple[Layer, ...]
    activations: dict[str, Activation]
    first: FirstToken
    calls: list[tuple[dict[str, np.ndarray], np.ndarray]]


class Recorder:
    """Hooks on a UNet that record its calls and the ranges of its layers."""

    def __init__(self, unet):
        self.layers, self.calls = find(unet), []
        self.ranges = defaultdict(lambda: (0.0, 0.0))
        modules = dict(unet.named_modules())
        self.hooks = [
            modules[layer.name].register_forward_hook(self._watch(layer)) for layer in self.layers
        ]
        self.hooks.append(unet.register_forward_hook(self._call, with_kwargs=True))

    def _watch(self, layer):
        def hook(_module, inputs, output):
            # A known first token is not quantized.
            value = inputs[0][:, 1:] if layer.begins_alike else inputs[0]
            parts = (value,) if layer.split is None else value.tensor_split([layer.split], dim=1)
            for place, part in enumerate(parts):
                self._widen((layer.name, place), part)
            self._widen((layer.name, "output"), output)

        return hook

    def _widen(self, key, values):
        low, high = self.ranges[key]
        self.ranges[key] = min(low, values.min().item()), max(high, values.max().item())

    def _call(self, _module, given, named, output):
        latents, timestep = given
        inputs = {
            "latents": latents,
            "timestep": timestep.expand(len(latents)).float(),
            "encoder_hidden_states": named["encoder_hidden_states"],
            **named["added_cond_kwargs"],
        }
        self.calls.append(({k: v.numpy() for k, v in inputs.items()}, output[0].numpy()))

    def activations(self):
        return {
            layer.name: Activation(
                tuple(
                    Range(*self.ranges[layer.name, place])
                    for place in range(1 if layer.split is None else 2)
                ),
                Range(*self.ranges[layer.name, "output"]),
            )
            for layer in self.layers
        }


@torch.no_grad()
def draw(checkpoint) -> Drawn:
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        checkpoint, local_files_only=True, torch_dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    recorder = Recorder(pipeline.unet)
    captions = [scene.caption for scene in TRAINING[:: len(TRAINING) // PICTURES][:PICTURES]]
    for steps in STEPS:
        pipeline(
            captions,
            num_inference_steps=steps,
            guidance_scale=0.0,
            generator=torch.Generator().manual_seed(steps),
            output_type="latent",
        )
    for hook in recorder.hooks:
        hook.remove()
    token = torch.from_numpy(recorder.calls[0][0]["encoder_hidden_states"][0, 0])
    modules = dict(pipeline.unet.named_modules())
    outputs = {
        layer.name: modules[layer.name](token).numpy()
        for layer in recorder.layers
        if layer.begins_alike
    }
    first = FirstToken(token.numpy(), outputs)
    return Drawn(recorder.layers, recorder.activations(), first, recorder.calls)
