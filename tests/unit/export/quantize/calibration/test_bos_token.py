"""The first token's embedding: constant in real text encoders, refused if it is not."""

import numpy as np
import pytest
import torch

from stepwise.export.errors import QuantizationError
from stepwise.export.quantize.calibration.bos_token import first_token
from stepwise.export.quantize.layers import find
from tests.unit.export.quantize.conftest import feed


def test_the_miniature_embeds_the_first_token_alike_in_every_prompt(study):
    found = first_token(study.unet, study.layers, study.texts)
    distance = np.abs(study.texts[:, 0] - found.embedding).max()
    print(f"{distance:.1e} between prompts, at most {found.margin:.1e}")
    assert distance <= found.margin
    assert list(found.outputs) == [layer.name for layer in study.layers if layer.begins_alike]
    name, output = next(iter(found.outputs.items()))
    with torch.inference_mode():
        expected = study.unet.get_submodule(name)(torch.from_numpy(study.texts[:, :1]))[:, 0]
    assert np.allclose(expected, output, atol=1e-5)


def test_outputs_for_the_first_token_follow_the_text_encoder(sd15):
    texts = feed()[2].numpy()
    before, after = (
        first_token(sd15, find(sd15), given).outputs for given in (texts, 1.01 * texts)
    )
    for name, output in before.items():
        assert np.allclose(after[name], 1.01 * output, rtol=1e-4)
        assert not np.allclose(after[name], output, rtol=1e-4)


def test_a_first_token_that_depends_on_the_prompt_is_refused(sd15):
    texts = feed(rows=3)[2].numpy()
    texts[2, 0, 5] += 1.0
    with pytest.raises(QuantizationError) as caught:
        first_token(sd15, find(sd15), texts)
    assert "the first token of prompt 3 has another embedding" in str(caught.value)
    assert "by up to 1 where 0.1 is allowed" in str(caught.value)
