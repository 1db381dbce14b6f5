"""Format numbers of an export's files. A change to the written files increments it.

A graph's number is its component's ``format``; its config counts as a file of the pipeline. The
server refuses a repository or an engine with another format; the exporter exports it again and
keeps everything else.
"""

from stepwise.description.spec import Component

# The manifest, tokenizers and all other files of a pipeline that belong to no component.
REPOSITORY = 5
# The conversion of a float32 graph to float16.
HALF = 1
# The quantization of a float32 graph, and its measurements.
QUANTIZED = 1
# Engines, their records and their Triton configs.
ENGINE = 1


def graph_format(component: Component, precision: str, quantized: bool) -> str:
    """The format of a component's graph and of its conversion, such as ``1, fp16 1``."""
    if quantized:
        return f"{component.format}, mixdq {QUANTIZED}"
    return f"{component.format}, fp16 {HALF}" if precision == "fp16" else str(component.format)
