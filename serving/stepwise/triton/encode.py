"""``<name>_encode``: token ids in, text embeddings out, and latents of images if there are any."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stepwise.batching.admission import Admission
from stepwise.batching.door import Door
from stepwise.description.errors import Cancelled, InvalidRequest, RequestError
from stepwise.description.fields import Array
from stepwise.description.settings import Settings
from stepwise.description.spec import IMAGES, INPAINT_LATENTS, SETTINGS, Component
from stepwise.description.vae_caches import with_caches
from stepwise.encoding import metrics
from stepwise.encoding.embedding_cache import EmbeddingCache
from stepwise.encoding.prompts import embeddings, encode_prompt, feed, unused_embeddings
from stepwise.families import FAMILIES
from stepwise.request import shared_state
from stepwise.request.signature import shapes, values
from stepwise.triton.bridge import (
    call,
    call_limit,
    failure,
    metric_families,
    pack,
    parameter,
    refuse,
    send,
    signer,
    unpack,
)
from stepwise.video.image_conditioning import inpaint_latents

_START, _END = (tensor.name for tensor in IMAGES)
# Requests that are encoded at once; more wait. Enough to fill the batches of every encoder.
_REQUESTS = 8
# A prompt's embeddings take 0.2 MB for SDXL, 4 MB for SD3 and 3.7 MB for EasyAnimate 7B.
_CACHE_BYTES = 256 << 20


@dataclass(eq=False)
class _Job:
    """A request, the sender of its response, and its checked inputs."""

    request: Any
    sender: Any
    inputs: Mapping[str, Array]
    line: str
    settings: Settings


class Encode:
    """Runs a request's text encoders over BLS, all at once, so that Triton batches their calls.

    One model runs all encoders because Triton 24.10 may end when a client disconnects from an
    ensemble with parallel steps. Prompts that the request does not use are not encoded. Requests
    that wait are bounded, ordered and ended like those that wait for the denoiser.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Start the threads that call the encoders."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        self._signer = signer(self._name)
        self._prepared = [tensor.name for tensor in self._family.encoder_inputs]
        self._encoded = [tensor.name for tensor in self._family.denoiser_feeds]
        self._cache = EmbeddingCache(_CACHE_BYTES)
        self._metrics = metrics.reporter(self._name, self._cache, metric_families())
        self._limit = call_limit(self._name, shared_state.ENCODE)
        self._requests = _started(_REQUESTS, "encode")
        self._calls = _started(_REQUESTS * len(list(self._family.encodings())), "encoder")
        # The encoder of images takes gigabytes for large ones: one request at a time.
        self._images = threading.Lock()
        shared = shared_state.folder()
        self._door = Door(
            Admission[_Job](self._family.capacity, _REQUESTS),
            self._requests,
            occupied=shared_state.Occupancy(shared, self._name, shared_state.DENOISE).read,
            changed=shared_state.Occupancy(shared, self._name, shared_state.ENCODE).write,
            run=self._answer,
            refuse=self._refuse,
        )

    def execute(self, requests: list[Any]) -> None:
        """Queue requests; each gets one response."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                job = self._job(request, sender)
            except Exception as error:
                # Not logged: the message does not come from ``prepare``.
                send(sender, failure(error), last=True)
                continue
            try:
                self._door.submit(job, job.settings)
            except RequestError as error:
                self._refuse(job, error)

    def finalize(self) -> None:
        """Finish the requests that wait and those that are being encoded."""
        self._metrics.close()
        self._door.close()
        self._requests.shutdown()
        self._calls.shutdown()

    def _job(self, request: Any, sender: Any) -> _Job:
        inputs = unpack(request)
        tensors = values(inputs, self._prepared) + shapes(inputs, (_START, _END))
        signed = inputs[SETTINGS.name][0]
        line = self._signer.check("prepared", request.request_id(), signed, tensors)
        return _Job(request, sender, inputs, line.decode(), Settings.from_json(line))

    def _answer(self, job: _Job) -> None:
        try:
            if job.sender.is_cancelled():
                raise Cancelled("the request was cancelled")
            encoded = self._encode(job.inputs, job.settings)
            tensors = shapes(encoded, self._encoded)
            signed = self._signer.sign("encoded", job.request.request_id(), job.line, tensors)
            answer = pack({**encoded, SETTINGS.name: signed})
        except Exception as error:
            self._refuse(job, error)
        else:
            send(job.sender, answer, last=True)

    def _refuse(self, job: _Job, error: Exception) -> None:
        answer = refuse(job.request, self._name, error, asked=job.settings.asked)
        send(job.sender, answer, last=True)

    def _encode(self, inputs: Mapping[str, Array], settings: Settings) -> dict[str, Array]:
        outputs, texts = dict(unused_embeddings(self._family, settings)), []
        for role in self._family.encoded_roles(settings):
            for encoder in self._family.encoders:
                # A thread would cost more than the lookup.
                kept = self._cache.kept(encoder.name, feed(encoder, role, inputs))
                if kept is None:
                    texts.append(self._calls.submit(self._encode_prompt, encoder, role, inputs))
                else:
                    outputs |= embeddings(encoder, role, kept)
        if self._family.image_encoder is not None:
            outputs[INPAINT_LATENTS.name] = self._encode_images(inputs, settings)
        for text in texts:
            outputs |= text.result()
        return outputs

    def _encode_prompt(
        self, encoder: Component, role: str, inputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        model = f"{self._name}_{encoder.name}"

        def run(given: Mapping[str, Array]) -> Mapping[str, Array]:
            def encode() -> dict[str, Any]:
                return call(self._limit, model, given, encoder.outputs)

            return self._cache.get(encoder.name, given, encode)

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
            return call(self._limit, model, given, outputs, caches)

        with self._images:
            return inpaint_latents(run, inputs[_START], inputs.get(_END), settings, layout)


def _started(count: int, name: str) -> ThreadPoolExecutor:
    """A pool with all of its threads, so that their number does not depend on the load."""
    pool, barrier = ThreadPoolExecutor(count, name), threading.Barrier(count)
    list(pool.map(lambda _: barrier.wait(), range(count)))
    return pool
