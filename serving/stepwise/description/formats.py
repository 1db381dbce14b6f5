"""Format numbers of what an export writes, each raised by whoever changes what is written.

A graph's own number is its component's ``format``. A repository or an engine of another format is
refused by the server and exported again by the exporter, which keeps everything else.
"""

from stepwise.description.spec import Component

# The manifest, tokenizers and all other files of a pipeline that are no component's.
REPOSITORY = 2
# What makes a float32 graph compute in float16.
HALF = 1
# What quantizes a float32 graph, and what it measures for that.
QUANTIZED = 1
# Engines, their records and their Triton configs.
ENGINE = 1


def graph_format(component: Component, precision: str, quantized: bool) -> str:
    """The numbers that decide what a component's graph is like, such as ``1, fp16 1``."""
    if quantized:
        return f"{component.format}, mixdq {QUANTIZED}"
    return f"{component.format}, fp16 {HALF}" if precision == "fp16" else str(component.format)
