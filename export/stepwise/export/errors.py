"""Errors of an export.

ValueError
└── ExportError            anything below
    ├── CheckpointError    the checkpoint cannot be read as the requested family
    ├── GraphError         a graph's inputs, outputs or axes differ from the spec
    ├── ParityError        a graph's outputs differ from those of its torch module
    ├── ResourceError      the machine has too little memory or disk
    ├── PrecisionError     a graph's values do not fit the requested precision
    ├── QuantizationError  a model, plan or budget cannot be used to quantize
    └── EngineError        no engine can be built: library, GPU or graph do not allow it
"""


class ExportError(ValueError):
    """The export failed; the message is one sentence for the user."""


class CheckpointError(ExportError):
    """The checkpoint cannot be read as the requested family."""


class GraphError(ExportError):
    """A graph's inputs, outputs or axes differ from the spec."""


class ParityError(ExportError):
    """A graph's outputs differ from those of its torch module."""


class PrecisionError(ExportError):
    """A graph's values do not fit the requested precision."""


class QuantizationError(ExportError):
    """A model, plan or budget cannot be used to quantize."""


class ResourceError(ExportError):
    """The machine has too little memory or disk."""


class EngineError(ExportError):
    """No engine can be built: library, GPU or graph do not allow it."""


def reason(error: BaseException) -> str:
    """The first sentence of a third-party error, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
