"""Exporter settings of each family, one file per family. None imports torch by itself."""

from importlib import import_module

from stepwise.export.families.base import FamilyExport

# Family name to the module and the literal in it.
_PLACES = {
    "sd3": ("sd3", "SD3"),
    "sdxl": ("sdxl", "SDXL"),
    "sdxl_turbo": ("sdxl", "SDXL_TURBO"),
    "easyanimate": ("easyanimate", "EASYANIMATE"),
    "easyanimate_i2v": ("easyanimate", "EASYANIMATE"),
}


def family_export(name: str) -> FamilyExport:
    """The exporter settings of the family with this name."""
    module, literal = _PLACES[name]
    found: FamilyExport = getattr(import_module(f"{__name__}.{module}"), literal)
    return found


def quantizable() -> tuple[str, ...]:
    """The families with a UNet, which can be quantized."""
    return tuple(name for name in _PLACES if family_export(name).calibration is not None)
