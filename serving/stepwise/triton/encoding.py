"""Runs the encoders of a request over BLS: texts, and the images that a video continues."""

import threading
from collections.abc import Mapping

from stepwise.description.family import Family
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import IMAGES, INPAINT_LATENTS, Component
from stepwise.encoding.embedding_cache import EmbeddingCache
from stepwise.encoding.prompts import embeddings, encode_prompt, feed
from stepwise.triton.bridge import Graphs
from stepwise.triton.threads import started
from stepwise.video.image_conditioning import inpaint_latents

_START, _END = (tensor.name for tensor in IMAGES)
# Triton's Python backend carries 32 calls of a model at a time. These and the requests that are
# encoded at once leave some for the denoiser and the decoder.
_CALLS = 16
# A prompt's embeddings take 0.2 MB for SDXL, 4 MB for SD3 and 3.7 MB for EasyAnimate 7B.
_CACHE_BYTES = 256 << 20


class Encoding:
    """Encodes prompts and images. All text encoders of a request run at once, so that Triton
    batches the calls of several requests. Prompts that a request does not use are not encoded.
    """

    def __init__(self, family: Family, graphs: Graphs) -> None:
        self._family = family
        self._graphs = graphs
        self._calls = started(_CALLS, "encoder")
        # The encoder of images takes gigabytes for large ones: one request at a time.
        self._images = threading.Lock()
        self.cache = EmbeddingCache(_CACHE_BYTES)

    def encode(self, inputs: Mapping[str, Array], settings: Settings) -> dict[str, Array]:
        """The denoiser's embeddings by name.

        ``inputs`` holds what ``Preparer`` returned for the encoders, and the images of a request.
        """
        outputs: dict[str, Array] = {}
        due: list[tuple[Component, str]] = []
        for role in self._family.encoded_roles(settings):
            for encoder in self._family.encoders:
                # A thread would cost more than the lookup.
                kept = self.cache.kept(encoder.name, feed(encoder, role, inputs))
                if kept is None:
                    due.append((encoder, role))
                else:
                    outputs |= embeddings(encoder, role, kept)
        images = self._family.image_encoder is not None
        # This thread makes the last call, or encodes the images meanwhile.
        own = due.pop() if due and not images else None
        others = [self._calls.submit(self._encode_prompt, *each, inputs) for each in due]
        if own is not None:
            outputs |= self._encode_prompt(*own, inputs)
        if images:
            outputs[INPAINT_LATENTS.name] = self._encode_images(inputs, settings)
        for each in others:
            outputs |= each.result()
        return outputs

    def close(self) -> None:
        """End the threads."""
        self._calls.shutdown()

    def _encode_prompt(
        self, encoder: Component, role: str, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        def run(given: Mapping[str, Array]) -> Mapping[str, Array]:
            return self.cache.get(encoder.name, given, lambda: self._graphs.run(encoder, given))

        return encode_prompt(encoder, role, inputs, run)

    def _encode_images(self, inputs: Mapping[str, Array], settings: Settings) -> Array:
        layout, encoder = settings.video, self._family.image_encoder
        assert encoder is not None
        assert layout is not None
        run = self._graphs.slices(encoder, layout.encoder_caches)
        with self._images:
            return inpaint_latents(run, inputs[_START], inputs.get(_END), settings, layout)
