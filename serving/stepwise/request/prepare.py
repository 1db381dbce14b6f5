"""Turns a request into the inputs of the text encoders."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from stepwise.description import files
from stepwise.description.errors import InvalidRequest
from stepwise.description.family import Family
from stepwise.description.fields import Array, text
from stepwise.description.manifest import TOKENIZERS, Manifest
from stepwise.description.settings import Settings
from stepwise.description.spec import Component, prompt_tensor
from stepwise.request import batch_caps
from stepwise.request.resolve import resolve

# Texts with tokens that are kept.
_RECENT = 256


class Preparer:
    """Turns request tensors into encoder inputs and settings for one exported checkpoint."""

    def __init__(self, family: Family, folder: Path) -> None:
        """Read the manifest and tokenizers in ``folder``, the folder of ``<name>``."""
        from tokenizers import Tokenizer

        self.family = family
        self.manifest = Manifest.read(folder)
        self._caps = batch_caps.read(folder, family, self.manifest)
        present = [name for name in self.manifest.tokens if name not in self.manifest.missing]
        paths = {name: folder / TOKENIZERS / f"{name}.json" for name in present}
        for path in paths.values():
            files.check(path)
        self._tokenizers = {name: Tokenizer.from_file(str(path)) for name, path in paths.items()}
        # Negative prompts, and prompts with other seeds, come again and again.
        self._read = lru_cache(_RECENT)(self._tokens)
        # A tokenizer reads a megabyte for seconds, although it returns only the first tokens. None
        # of them is longer than the vocabulary's longest.
        self._characters = {
            name: self.manifest.tokens[name] * max(map(len, tokenizer.get_vocab()))
            for name, tokenizer in self._tokenizers.items()
        }

    def __call__(
        self, inputs: Mapping[str, Array], arrived: float
    ) -> tuple[dict[str, Array], Settings]:
        """The encoders' inputs by name, int64 with a batch dim of 1, and the settings.

        ``arrived`` is seconds on the monotonic clock. Raises InvalidRequest.
        """
        settings = resolve(inputs, self.family, self.manifest, self._caps, arrived)
        longest = self.family.limits.prompt_bytes
        prompt = text(inputs, "prompt", "", longest)
        shown = "video" if self.family.makes_videos else "picture"
        if not prompt.strip():
            got = repr(prompt) if "prompt" in inputs else "none"
            raise InvalidRequest(f"prompt: got {got}; say what the {shown} should show")
        for image in self.family.video.images[:1] if self.family.video else ():
            if image.name not in inputs:
                raise InvalidRequest(
                    f"{image.name}: got none; send the video's first frame, uint8 (height, width, "
                    "3)"
                )
        absent = self.family.defaults.negative_prompt or ""
        negative = text(inputs, "negative_prompt", absent, longest)
        notes = [*settings.notes, *map(_missing_note, self.manifest.missing)]
        fed: dict[str, Array] = {}
        for role, words in (("", prompt), ("negative_", negative)):
            cut = [
                encoder.name
                for encoder in self.family.encoders
                if self._tokenize(role, encoder, words, fed)
            ]
            if cut:
                notes.append(self._cut_note(f"{role}prompt", cut))
        for role, encoder in self.family.encodings():
            for tensor in encoder.settings:
                # diffusers skips layers only for the positive prompt.
                value = 0 if role else getattr(settings, tensor.name)
                fed[prompt_tensor(role, encoder, tensor)] = np.full((1, 1), value, np.int64)
        return fed, replace(settings, notes=tuple(notes))

    def _tokenize(self, role: str, encoder: Component, words: str, fed: dict[str, Array]) -> bool:
        """Add an encoder's token ids and mask, if it takes one; true if the prompt was cut."""
        name = prompt_tensor(role, encoder, encoder.inputs[0])
        if encoder.name in self.manifest.missing:
            fed[name] = np.zeros((1, self.manifest.tokens[encoder.name]), np.int64)
            return False
        read = words[: self._characters[encoder.name]]
        fed[name], mask, cut = self._read(encoder.name, read)
        if encoder.mask is not None:
            fed[prompt_tensor(role, encoder, encoder.mask)] = mask
        return cut or read != words

    def _tokens(self, encoder: str, words: str) -> tuple[Array, Array, bool]:
        """Token ids, attention mask, and whether the encoder reads only the first tokens."""
        before, after = self.manifest.templates.get(encoder, ("", ""))
        encoding = self._tokenizers[encoder].encode(f"{before}{words}{after}")
        ids, mask = (np.asarray([e], np.int64) for e in (encoding.ids, encoding.attention_mask))
        return ids, mask, bool(encoding.overflowing)

    def _cut_note(self, field: str, encoders: list[str]) -> str:
        limits = ", ".join(f"{name} {self.manifest.tokens[name]}" for name in encoders)
        return f"{field}: cut to the first tokens that the text encoders read ({limits})"


def _missing_note(encoder: str) -> str:
    return f"{encoder}: this checkpoint was exported without it; its embeddings are zeros"
