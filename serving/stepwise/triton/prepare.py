"""``<name>_prepare`` turns request tensors into encoder inputs and settings."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwise.description.spec import IMAGES, SETTINGS
from stepwise.families import FAMILIES
from stepwise.request import log, peers
from stepwise.request.prepare import Preparer
from stepwise.request.signature import shapes, values
from stepwise.triton.bridge import pack, parameter, refuse, signer, unpack


class Prepare:
    """Validates requests and turns their tensors into encoder inputs and settings."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers in this model's folder."""
        self._name = parameter(args, "name")
        self._family = family = FAMILIES[parameter(args, "pipeline")]
        self._prepare = Preparer(family, Path(args["model_repository"]))
        self._peer_header = peers.header()
        self._signer = signer(self._name)
        self._fed = [tensor.name for tensor in family.encoder_inputs]
        self._images = [tensor.name for tensor in IMAGES]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request separately, so that an invalid one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = unpack(request)
        asked = log.asked(inputs)
        try:
            given = json.loads(request.parameters() or "{}")
            peer = peers.peer(given, self._peer_header, self._family)
            fed, settings = self._prepare(inputs, time.monotonic())
        except Exception as error:
            return refuse(request, self._name, error, asked=asked)
        line = replace(settings, asked=asked, peer=peer).to_json()
        tensors = values(fed, self._fed) + shapes(inputs, self._images)
        signed = self._signer.sign("prepared", request.request_id(), line, tensors)
        return pack({**fed, SETTINGS.name: signed})
