"""What is served: one typed literal per family, and the pure functions of a request's life.

Importing this package costs numpy and the standard library, never torch.
"""

from pipelines.easyanimate import EASYANIMATE, EASYANIMATE_I2V
from pipelines.sd3 import SD3
from pipelines.sdxl import SDXL, SDXL_TURBO
from pipelines.spec import Pipeline

PIPELINES: dict[str, Pipeline] = {
    pipeline.family: pipeline for pipeline in (SD3, SDXL, SDXL_TURBO, EASYANIMATE, EASYANIMATE_I2V)
}
