"""``<name>_encode``: token ids in, text embeddings out, and latents of images if there are any."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stepwise.batching.active_requests import expired
from stepwise.description.errors import Cancelled, InvalidRequest
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import IMAGES, INPAINT_LATENTS, SETTINGS, Component
from stepwise.description.vae_caches import with_caches
from stepwise.encoding import metrics
from stepwise.encoding.embedding_cache import EmbeddingCache
from stepwise.encoding.prompts import encode_prompt, unused_embeddings
from stepwise.families import FAMILIES
from stepwise.triton.bridge import call, metric_families, pack, parameter, refuse, send, unpack
from stepwise.video.image_conditioning import inpaint_latents

_START, _END = (tensor.name for tensor in IMAGES)
# Requests that are encoded at once; more wait. Enough to fill the batches of every encoder.
_REQUESTS = 8
# A prompt's embeddings take 0.2 MB for SDXL, 4 MB for SD3 and 3.7 MB for EasyAnimate 7B.
_CACHE_BYTES = 256 << 20


class Encode:
    """Runs a request's text encoders over BLS, all at once, so that Triton batches their calls.

    One model runs all encoders because Triton 24.10 may end when a client disconnects from an
    ensemble with parallel steps. Prompts that the request does not use are not encoded.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Start the threads that call the encoders."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._cache = EmbeddingCache(_CACHE_BYTES)
        self._metrics = metrics.reporter(self._name, self._cache, metric_families())
        self._requests = _started(_REQUESTS, "encode")
        self._calls = _started(_REQUESTS * len(list(self._family.encodings())), "encoder")
        # The encoder of images takes gigabytes for large ones: one request at a time.
        self._images = threading.Lock()

    def execute(self, requests: list[Any]) -> None:
        """Queue requests; each gets one response."""
        for request in requests:
            self._requests.submit(self._answer, request, request.get_response_sender())

    def finalize(self) -> None:
        """Finish the requests that are being encoded."""
        self._metrics.close()
        self._requests.shutdown()
        self._calls.shutdown()

    def _answer(self, request: Any, sender: Any) -> None:
        try:
            inputs = unpack(request)
            settings = Settings.from_json(inputs[SETTINGS.name][0])
            self._check(settings, sender)
            answer = pack({**self._encode(inputs, settings), SETTINGS.name: inputs[SETTINGS.name]})
        except Exception as error:
            answer = refuse(request, self._name, error)
        send(sender, answer, last=True)

    def _check(self, settings: Settings, sender: Any) -> None:
        """Raise Expired for a late request, Cancelled for one whose client disconnected."""
        if (now := time.monotonic()) >= settings.deadline:
            raise expired(settings, now)
        if sender.is_cancelled():
            raise Cancelled("the request was cancelled")

    def _encode(self, inputs: Mapping[str, Array], settings: Settings) -> dict[str, Array]:
        texts = [
            self._calls.submit(self._encode_prompt, encoder, role, inputs)
            for role in self._family.encoded_roles(settings)
            for encoder in self._family.encoders
        ]
        outputs = dict(unused_embeddings(self._family, settings))
        if self._family.image_encoder is not None:
            outputs[INPAINT_LATENTS.name] = self._encode_images(inputs, settings)
        for embeddings in texts:
            outputs |= embeddings.result()
        return outputs

    def _encode_prompt(
        self, encoder: Component, role: str, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        model = f"{self._name}_{encoder.name}"

        def run(feed: Mapping[str, Array]) -> Mapping[str, Array]:
            return self._cache.get(encoder.name, feed, lambda: call(model, feed, encoder.outputs))

        return encode_prompt(encoder, role, inputs, run)

    def _encode_images(self, inputs: Mapping[str, Array], settings: Settings) -> Array:
        layout, encoder = settings.video, self._family.image_encoder
        assert encoder is not None
        if layout is None or _START not in inputs:
            raise InvalidRequest(f"got no {_START}; send requests to the ensemble {self._name}")
        outputs = encoder.outputs
        caches = with_caches(encoder, layout.encoder_caches).outputs[len(outputs) :]
        model = f"{self._name}_{encoder.name}"

        def run(given: Mapping[str, Any]) -> Mapping[str, Any]:
            return call(model, given, outputs, caches)

        with self._images:
            return inpaint_latents(run, inputs[_START], inputs.get(_END), settings, layout)


def _started(count: int, name: str) -> ThreadPoolExecutor:
    """A pool with all of its threads, so that their number does not depend on the load."""
    pool, barrier = ThreadPoolExecutor(count, name), threading.Barrier(count)
    list(pool.map(lambda _: barrier.wait(), range(count)))
    return pool
