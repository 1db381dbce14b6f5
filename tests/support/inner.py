"""Well-formed messages to every model of a pipeline, inner ones included."""

import uuid
from dataclasses import dataclass

import numpy as np
from stepwise.request.signature import DIGITS

from stepwise.description.family import Family
from stepwise.description.settings import Settings
from stepwise.description.spec import EVENT, IMAGES, SETTINGS, prompt_tensor
from stepwise.request.events import Event
from stepwise.server.process import Server
from stepwise.video import sliced_vae
from stepwise.video.image_conditioning import inpaint_latents
from tests.support.raw import Stream

PROMPT = "a large red star in the top left on a white background"


@dataclass(frozen=True)
class Message:
    """Tensors that the model ``model`` accepts in a request with this ID."""

    model: str
    request_id: str
    tensors: dict[str, np.ndarray]


def unsigned(signed: np.ndarray) -> bytes:
    """The line in a signed message."""
    return signed[0][DIGITS:]


class Pipeline:
    """Calls the models of one pipeline one after another, as its ensemble does."""

    def __init__(self, server: Server, family: Family, **asked: object) -> None:
        self.family = family
        self._server = server
        self._id = str(uuid.uuid4())
        self._asked = {"prompt": PROMPT, "steps": 2, **asked}
        if family.makes_videos:
            self._asked["frames"] = 5
        if family.image_encoder is not None:
            self._asked["start_image"] = np.full((64, 64, 3), 200, np.uint8)
        self.messages: dict[str, Message] = {}

    def call(self, part: str, tensors: dict[str, object]) -> list[dict[str, np.ndarray]]:
        """The responses of one model with tensors; its message is kept under the model's name."""
        model = f"{self.family.name}_{part}" if part else self.family.name
        self.messages[model] = Message(model, self._id, dict(tensors))
        found = []
        # One stream for each model: Triton 24.10 mixes up the responses of several in one.
        with Stream(self._server) as stream:
            stream.send(model, self._id, **tensors)
            while True:
                result, error = stream.next()
                assert error is None, f"{model}: {error}"
                response = result.get_response()
                if response.outputs:
                    outputs = (each.name for each in response.outputs)
                    found.append({name: result.as_numpy(name) for name in outputs})
                if response.parameters["triton_final_response"].bool_param:
                    return found

    def walk(self) -> dict[str, Message]:
        """Call every model; the messages by model."""
        family = self.family
        self.call("", self._asked)
        images = {t.name: self._asked[t.name] for t in IMAGES if t.name in self._asked}
        (prepared,) = self.call("prepare", self._asked)
        (encoded,) = self.call("encode", {**prepared, **images})
        settings = Settings.from_json(unsigned(prepared[SETTINGS.name]))
        self._call_graphs(prepared, images, settings)
        *_, last = self.call("denoise", encoded)
        latents = last[family.latents.name]
        self.call("decode", {family.latents.name: latents, EVENT.name: last[EVENT.name]})
        assert Event.from_json(unsigned(last[EVENT.name])).kind == "result"
        self._decode(latents, settings)
        rows = family.row_conditioning(encoded, settings)
        conditioning = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        names = [tensor.name for tensor in family.denoiser.inputs]
        feed = {
            **{name: np.asarray(v) for name, v in conditioning.items()},
            **family.shared(settings),
            names[0]: np.stack([latents] * len(rows)),
            names[1]: np.full((len(rows),), 500, np.float32),
        }
        self.call(family.denoiser.name, {name: feed[name] for name in names})
        return self.messages

    def _call_graphs(self, prepared, images, settings) -> None:
        for encoder in self.family.encoders:
            feed = {t.name: prepared[prompt_tensor("", encoder, t)] for t in encoder.inputs}
            self.call(encoder.name, feed)
        encoder = self.family.image_encoder
        if encoder is not None:
            inpaint_latents(
                self._run(encoder.name), images[IMAGES[0].name], None, settings, settings.video
            )

    def _decode(self, latents, settings) -> None:
        decoder = self.family.decoder
        if self.family.makes_videos:
            list(sliced_vae.decode(self._run(decoder.name), latents, settings.video))
        else:
            self.call(decoder.name, {decoder.inputs[0].name: latents[None]})

    def _run(self, part):
        return lambda feed: self.call(part, dict(feed))[0]
