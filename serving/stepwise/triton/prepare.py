"""``<name>_prepare``: request tensors in, encoder inputs and settings out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepwise.description.spec import SETTINGS
from stepwise.families import FAMILIES
from stepwise.request import log
from stepwise.request.prepare import Preparer
from stepwise.triton.bridge import as_request_error, failure, pack, parameter, unpack


class Prepare:
    """``<name>_prepare``: request tensors in, encoder inputs and settings out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers beside this model."""
        self._name = parameter(args, "name")
        family = FAMILIES[parameter(args, "pipeline")]
        self._prepare = Preparer(family, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = unpack(request)
        asked = log.asked(inputs)
        try:
            fed, settings = self._prepare(inputs, time.monotonic())
        except Exception as error:
            refused = as_request_error(error)
            described = {"id": request.request_id(), "pipeline": self._name, "asked": asked}
            log.write({**described, "outcome": refused.code, "error": str(refused)})
            return failure(refused)
        line = np.asarray([replace(settings, asked=asked).to_json().encode()], np.object_)
        return pack({**fed, SETTINGS.name: line})
