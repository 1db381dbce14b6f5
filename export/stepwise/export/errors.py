"""What can go wrong while a checkpoint is exported.

ValueError
└── ExportError            anything below
    ├── CheckpointError    the checkpoint cannot be read as the pipeline asked for
    ├── GraphError         a graph does not have the inputs, outputs or axes that it should have
    ├── ParityError        a graph computes something else than its torch module
    ├── ResourceError      the machine has too little memory or disk for it
    ├── PrecisionError     a graph's values do not fit the precision that was asked for
    ├── QuantizationError  a model, plan or budget is not fit to quantize
    └── EngineError        no engine can be built: library, GPU or graph do not allow it
"""


class ExportError(ValueError):
    """An export that did not succeed; its message is one sentence for the person who ran it."""


class CheckpointError(ExportError):
    """The checkpoint cannot be read as the pipeline asked for."""


class GraphError(ExportError):
    """A graph does not have the inputs, outputs or axes that it should have."""


class ParityError(ExportError):
    """A graph computes something else than its torch module."""


class PrecisionError(ExportError):
    """A graph's values do not fit the precision that was asked for."""


class QuantizationError(ExportError):
    """A model, plan or budget is not fit to quantize."""


class ResourceError(ExportError):
    """The machine has too little memory or disk for it."""


class EngineError(ExportError):
    """No engine can be built: library, GPU or graph do not allow it."""


def reason(error: BaseException) -> str:
    """The first sentence of an error of somebody else's, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
