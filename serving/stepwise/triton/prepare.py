"""``<name>_prepare`` turns request tensors into encoder inputs and settings."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stepwise.description.spec import SETTINGS
from stepwise.families import FAMILIES
from stepwise.request import log
from stepwise.request.prepare import Preparer
from stepwise.triton.bridge import pack, parameter, refuse, unpack


class Prepare:
    """Validates requests and turns their tensors into encoder inputs and settings."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the manifest, the batch caps and the tokenizers in this model's folder."""
        self._name = parameter(args, "name")
        family = FAMILIES[parameter(args, "pipeline")]
        self._prepare = Preparer(family, Path(args["model_repository"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request separately, so that an invalid one fails alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        inputs = unpack(request)
        asked = log.asked(inputs)
        try:
            fed, settings = self._prepare(inputs, time.monotonic())
        except Exception as error:
            return refuse(request, self._name, error, asked=asked)
        line = np.asarray([replace(settings, asked=asked).to_json().encode()], np.object_)
        return pack({**fed, SETTINGS.name: line})
