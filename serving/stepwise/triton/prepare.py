"""``<name>_prepare``: request tensors in, encoder inputs and settings out."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import PIPELINES, request_log
from pipelines.prepare import Preparer
from pipelines.spec import SETTINGS
from pipelines.triton.wire import as_request_error, failure, pack, parameter, unpack


class Prepare:
    """``<name>_prepare``: request tensors in, encoder inputs and settings out."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers beside this model."""
        self._name = parameter(args, "name")
        pipeline = PIPELINES[parameter(args, "pipeline")]
        self._prepare = Preparer(pipeline, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself; a bad one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = unpack(request)
        asked = request_log.asked(inputs)
        try:
            fed, settings = self._prepare(inputs, time.monotonic())
        except Exception as error:
            refused = as_request_error(error)
            described = {"id": request.request_id(), "pipeline": self._name, "asked": asked}
            request_log.write({**described, "outcome": refused.code, "error": str(refused)})
            return failure(refused)
        line = np.asarray([replace(settings, asked=asked).to_json().encode()], np.object_)
        return pack({**fed, SETTINGS.name: line})
