"""EasyAnimate's causal video autoencoder, run slice by slice or on a whole video.

In diffusers' AutoencoderKLMagvit each convolution caches the last frames that it has seen, and runs
once per frame. Here the caches are inputs and outputs, as a graph needs, and a convolution runs
once for all frames.

A slice that begins a video is one latent frame, and the frames before it are copies of it. All
frames made from it are therefore equal, at every level, however often upsampling doubles them. The
last of them equals the single frame that diffusers makes, and the cached frames are equal too. So
one graph serves the first slice and all others.
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
    """The cached frames of an autoencoder's convolutions, during one call.

    Without ``seen`` a call has the whole video, and each convolution repeats the first frame of its
    input before it. With ``seen``, ``first`` (a bool tensor of one element) says whether the slice
    begins a video.
    """

    def __init__(self) -> None:
        """No call is active."""
        self.begin()

    def begin(self, first: Tensor | None = None, seen: tuple[Tensor, ...] | None = None) -> None:
        """Start a call; the convolutions take the frames in ``seen`` in their order."""
        self.first = first
        self.seen: Iterator[Tensor] | None = None if seen is None else iter(seen)
        self.last: list[Tensor] = []

    def end(self) -> tuple[Tensor, ...]:
        """End a call; return the frames that each convolution needs before the next slice."""
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
    """A causal convolution that takes the preceding frames from its ``stream``."""

    stream: Stream

    @property
    def memory(self) -> int:
        """The number of cached frames before a slice: those that its stride leaves over."""
        return int(self.temporal_padding - self.t_stride + 1)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to as many, or to half as many."""
        whole = self.stream.seen is None
        count = self.temporal_padding if whole else self.memory
        frames = torch.cat([self.stream.before(hidden_states, count), hidden_states], dim=2)
        if not whole:
            self.stream.last.append(frames[:, :, -count:])
        if self.stride[-1] > 1:
            # After caching, unlike in diffusers, so that cached frames keep the frames' sides.
            frames = nn.functional.pad(frames, (0, 1, 0, 1))
        if whole:
            return nn.functional.conv3d(frames, self.weight, self.bias, self.stride, self.padding)
        return _by_frame(frames, self)


class StreamedPointwise(nn.Conv3d):
    """A 1 x 1 x 1 convolution."""

    stream: Stream

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Frames (batch, channels, frames, height, width) to as many."""
        if self.stream.seen is None:
            return super().forward(hidden_states)
        return _by_frame(hidden_states, self)


def _by_frame(frames: Tensor, convolution: nn.Conv3d) -> Tensor:
    """Convolve frames (1, channels, frames, height, width) as a sum of 2D convolutions.

    The frames are the rows of a batch. Runtimes sum a row in the same order whatever else its batch
    holds, so a frame does not depend on the length of its slice, down to the last digit. ONNX
    Runtime is also faster this way.
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
    """Doubles the sides and, if it upsamples in time, the frames but the first of a whole video."""

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
    """Make a model's encoder and decoder take cached frames from streams; return both streams.

    The model keeps its weights and their names. Raises CheckpointError if it normalizes over
    frames, which a single slice cannot do.
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
