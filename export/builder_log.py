"""The layers of an engine, as its builder tells of them while it builds.

Only on its GPU could an engine itself be asked.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE = re.compile(
    r"^Name: .*?, LayerType: (?P<kind>\S+), (?:Inputs: \[(?P<inputs>.*?)\], )?"
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], TacticName"
    r"(?:.*?Metadata: (?P<metadata>.*))?"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of an engine: the datatypes of what it takes and gives, and the nodes it is of."""

    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def read(lines: Iterable[str]) -> Iterator[BuiltLayer]:
    """The layers that a builder's detailed log lists, in their order."""
    for line in "\n".join(lines).splitlines():
        if found := _LINE.match(line):
            inputs, constants, outputs = (
                tuple(_DATATYPE.findall(found[place] or ""))
                for place in ("inputs", "constants", "outputs")
            )
            nodes = tuple(_NODE.findall(found["metadata"] or ""))
            yield BuiltLayer(found["kind"], inputs, constants, outputs, nodes)
