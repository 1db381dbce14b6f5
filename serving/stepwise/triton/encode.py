"""``<name>_encode`` encodes the images that a video continues to latents for the denoiser."""

import time
from collections.abc import Mapping
from typing import Any

from stepwise.batching.active_requests import expired
from stepwise.description.errors import InvalidRequest
from stepwise.description.settings import Settings
from stepwise.description.spec import IMAGES, INPAINT_LATENTS, SETTINGS
from stepwise.description.vae_caches import with_caches
from stepwise.families import FAMILIES
from stepwise.request import log
from stepwise.triton.bridge import as_request_error, call, failure, pack, parameter, unpack
from stepwise.video.image_conditioning import inpaint_latents

_START, _END = (tensor.name for tensor in IMAGES)


class Encode:
    """Encodes the images of one video at a time, slice by slice, with ``<name>_vae_encoder``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Look up the image encoder."""
        self._name = parameter(args, "name")
        self._family = FAMILIES[parameter(args, "pipeline")]
        assert self._family.image_encoder is not None
        self._encoder = self._family.image_encoder

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request separately."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            return pack({INPAINT_LATENTS.name: self._encode(unpack(request))})
        except Exception as error:
            refused = as_request_error(error)
            described = {"id": request.request_id(), "pipeline": self._name}
            log.write({**described, "outcome": refused.code, "error": str(refused)})
            return failure(refused)

    def _encode(self, inputs: Mapping[str, Any]) -> Any:
        settings = Settings.from_json(inputs[SETTINGS.name][0])
        layout = settings.video
        if layout is None or _START not in inputs:
            raise InvalidRequest(f"got no {_START}; send requests to the ensemble {self._name}")
        if (now := time.monotonic()) >= settings.deadline:
            raise expired(settings, now)
        outputs = self._encoder.outputs
        caches = with_caches(self._encoder, layout.encoder_caches).outputs[len(outputs) :]
        model = f"{self._name}_{self._encoder.name}"

        def run(given: Mapping[str, Any]) -> Mapping[str, Any]:
            return call(model, given, outputs, caches)

        return inpaint_latents(run, inputs[_START], inputs.get(_END), settings, layout)
