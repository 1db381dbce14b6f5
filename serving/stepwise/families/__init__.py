"""The supported families, each in a module that depends only on numpy.

``FAMILIES`` imports a family's module on its first lookup.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module

from stepwise.description.family import Family

# By name: the module, and the literal in it.
_PLACES = {
    "sd3": ("sd3", "SD3"),
    "sdxl": ("sdxl", "SDXL"),
    "sdxl_turbo": ("sdxl", "SDXL_TURBO"),
    "easyanimate": ("easyanimate", "EASYANIMATE"),
    "easyanimate_i2v": ("easyanimate", "EASYANIMATE_I2V"),
}


class _Families(Mapping[str, Family]):
    def __getitem__(self, name: str) -> Family:
        module, literal = _PLACES[name]
        family: Family = getattr(import_module(f"{__name__}.{module}"), literal)
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


FAMILIES: Mapping[str, Family] = _Families()
