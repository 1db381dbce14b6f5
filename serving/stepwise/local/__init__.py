"""Runs an exported pipeline in this process, without Triton.

from stepwise.local import LocalPipeline

pipeline = LocalPipeline("model_repository", "sd3")
for image in pipeline.generate("a large red star", steps=20, seed=7):
    print(image.shape)
"""

from stepwise.local.pipeline import LocalPipeline

__all__ = ["LocalPipeline"]
