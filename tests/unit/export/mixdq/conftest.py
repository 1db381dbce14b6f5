import pytest

from export.mixdq.plan import FLOAT_BITS, Entry, Plan
from export.mixdq.recipe import Recipe
from export.target import GRAPH
from tests.unit.export.mixdq.drawn import draw

# What every method leaves alone.
ENDS = ("conv_in", "conv_out")


@pytest.fixture(scope="session")
def float_graph(families):
    """The float32 graph of the SDXL-Turbo miniature's UNet."""
    return families / "sdxl_turbo_unet" / "1" / GRAPH


@pytest.fixture(scope="session")
def drawn(checkpoints):
    return draw(checkpoints["sdxl_turbo"])


@pytest.fixture(scope="session")
def recipe(drawn):
    """Makes a recipe of one bit-width for all layers but the first and last."""

    def make(weight_bits, activation_bits, block=64):
        entries = {layer.name: Entry(FLOAT_BITS, FLOAT_BITS) for layer in drawn.layers}
        for layer in drawn.layers:
            if layer.name not in ENDS and weight_bits != FLOAT_BITS:
                bits = weight_bits if layer.is_linear else 8
                entries[layer.name] = Entry(bits, activation_bits)
        plan = Plan("miniatures/sdxl_turbo", 0, entries)
        return Recipe(drawn.layers, plan, drawn.activations, drawn.first, block)

    return make
