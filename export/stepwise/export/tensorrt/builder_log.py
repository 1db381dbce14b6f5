"""Reads the kernels of an engine from its builder's log.

An engine itself can be inspected only on its GPU.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE = re.compile(
    r"^Name: .*?, LayerType: (?P<kind>\S+), (?:Inputs: \[(?P<inputs>.*?)\], )?"
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<code>.*?),(?:.*?Metadata: (?P<metadata>.*))?"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True)
class Kernel:
    """A layer of an engine: the datatypes of its inputs, constants and outputs, and its ONNX nodes.

    ``code`` is the builder's name of the code that it runs, "" for none.
    """

    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    code: str
    nodes: tuple[str, ...]

    @property
    def datatype(self) -> str:
        """The datatype of its first output; "none" without outputs."""
        return next(iter(self.outputs), "none")


def read(lines: Iterable[str]) -> Iterator[Kernel]:
    """The kernels that a builder's detailed log lists, in their order."""
    for line in "\n".join(lines).splitlines():
        if found := _LINE.match(line):
            inputs, constants, outputs = (
                tuple(_DATATYPE.findall(found[place] or ""))
                for place in ("inputs", "constants", "outputs")
            )
            nodes = tuple(_NODE.findall(found["metadata"] or ""))
            yield Kernel(found["kind"], inputs, constants, outputs, found["code"], nodes)
