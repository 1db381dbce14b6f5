"""EasyAnimate's causal video autoencoder, one slice of frames after another or all in one pass.

diffusers' AutoencoderKLMagvit keeps the last frames that each of its convolutions has seen inside
the modules, and calls each convolution once for every frame. Here they are inputs and outputs, so
that a graph can have them, and a convolution is called once for all frames.

A slice that begins a video is made of one latent frame, whose frames before it are itself. Every
frame that comes of it is then the same, at every level, however often it is doubled: where
diffusers makes one frame of it, the last one of a slice is that frame, and the frames that the
convolutions have seen are the same too. So one graph serves the first slice and all others.
"""

from collections.abc import Iterator
from itertools import chain

import torch
from diffusers import AutoencoderKLMagvit
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateDownsampler3D,
    EasyAnimateUpsampler3D,
)
from torch import Tensor, nn

from stepwise.export.errors import CheckpointError


class Stream:
    """The frames that the convolutions of one autoencoder have seen, during a call of it.

    Without ``seen`` a call has the whole video, and each convolution sees its first frame before
    it. With it, ``first`` (a bool tensor of one element) says whether the slice begins a video.
    """

    def __init__(self) -> None:
        """No call is under way."""
        self.begin()

    def begin(self, first: Tensor | None = None, seen: tuple[Tensor, ...] | None = None) -> None:
        """Start a call, in which ``seen`` is taken up in the order of the convolutions."""
        self.first = first
        self.seen: Iterator[Tensor] | None = None if seen is None else iter(seen)
        self.last: list[Tensor] = []

    def end(self) -> tuple[Tensor, ...]:
        """End a call: what each convolution must have seen before the next slice."""
        last = tuple(self.last)
        self.begin()
        return last

    def before(self, frames: Tensor, count: int) -> Tensor:
        """The ``count`` frames before ``frames`` (batch, channels, frames, height, width)."""
        start = frames[:, :, :1].expand(-1, -1, count, -1, -1)
        if self.seen is None or self.first is None:
            return start
        return torch.where(self.first, start, next(self.seen))


class StreamedConv3d(EasyAnimateCausalConv3d):  # type: ignore[misc]
    """A causal convolution that takes the frames before from its ``stream``."""

    stream: Stream

    @property
    def memory(self) -> int:
        """How many frames it must have seen before a slice: those that its stride leaves over."""
        return int(self.temporal_padding - self.t_stride + 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to as many, or to half of them."""
        whole = self.stream.seen is None
        count = self.temporal_padding if whole else self.memory
        frames = torch.cat([self.stream.before(hidden_states, count), hidden_states], dim=2)
        if not whole:
            self.stream.last.append(frames[:, :, -count:])
        if self.stride[-1] > 1:
            # diffusers pads before; what is kept for the next slice has the sides of the frames.
            frames = nn.functional.pad(frames, (0, 1, 0, 1))
        if whole:
            return nn.functional.conv3d(frames, self.weight, self.bias, self.stride, self.padding)
        return _by_frame(frames, self)


class StreamedPointwise(nn.Conv3d):
    """A convolution of one pixel of one frame."""

    stream: Stream

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to as many."""
        if self.stream.seen is None:
            return super().forward(hidden_states)
        return _by_frame(hidden_states, self)


def _by_frame(frames: Tensor, convolution: nn.Conv3d) -> Tensor:
    """A convolution over frames (1, channels, frames, height, width) as a sum of those of pictures.

    The frames are the rows of a batch. Runtimes sum up a picture in the same order whatever else
    is in its batch, so a frame does not depend on how many are in its slice, not even in its last
    digit. ONNX Runtime also takes less time for it.
    """
    rows, (step, *stride) = frames.squeeze(0).transpose(0, 1), convolution.stride
    size, padding = convolution.kernel_size[0], convolution.padding[1:]
    seen = [rows[place : place - size + 1 or None : step] for place in range(size)]
    biases = [convolution.bias, *[None] * (size - 1)]
    made = [
        nn.functional.conv2d(part, convolution.weight[:, :, place], bias, stride, padding)
        for place, (part, bias) in enumerate(zip(seen, biases, strict=True))
    ]
    total: Tensor = sum(made[1:], made[0])
    return total.transpose(0, 1).unsqueeze(0)


class StreamedDownsampler3D(EasyAnimateDownsampler3D):  # type: ignore[misc]
    """Halves the sides, and the frames if its convolution does."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to half the sides."""
        halved: Tensor = self.conv(hidden_states)
        return halved


class StreamedUpsampler3D(EasyAnimateUpsampler3D):  # type: ignore[misc]
    """Doubles the sides, and the frames, but for the first of a whole video."""

    stream: Stream

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to twice the sides and frames."""
        doubled = nn.functional.interpolate(hidden_states, scale_factor=(1, 2, 2), mode="nearest")
        frames: Tensor = self.conv(doubled)
        if not self.temporal_upsample:
            return frames
        kept = frames[:, :, : int(self.stream.seen is None)]
        return torch.cat([kept, frames[:, :, kept.shape[2] :].repeat_interleave(2, dim=2)], dim=2)


def streamed(model: AutoencoderKLMagvit) -> tuple[Stream, Stream]:
    """Have a model's encoder and decoder take their frames from streams, which are returned.

    The model keeps its weights and their names. CheckpointError if it normalizes over frames,
    which no slice could do by itself.
    """
    if not model.config.spatial_group_norm:
        raise CheckpointError(
            "the autoencoder has spatial_group_norm=False and so normalizes over all frames of a "
            "video; only those that normalize each frame can decode a video slice by slice"
        )
    encoder, decoder = (model.encoder, model.quant_conv), (model.decoder, model.post_quant_conv)
    return _stream(*encoder), _stream(*decoder)


def _stream(*parts: nn.Module) -> Stream:
    stream = Stream()
    for module in chain.from_iterable(part.modules() for part in parts):
        if isinstance(module, EasyAnimateCausalConv3d):
            module.__class__ = StreamedConv3d
        elif isinstance(module, EasyAnimateUpsampler3D):
            module.__class__ = StreamedUpsampler3D
        elif isinstance(module, EasyAnimateDownsampler3D):
            module.__class__ = StreamedDownsampler3D
        elif isinstance(module, nn.Conv3d):
            module.__class__ = StreamedPointwise
        else:
            continue
        module.stream = stream
    return stream
