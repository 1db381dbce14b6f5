"""Stable Diffusion 3, for the exporter."""

from stepwise.export.families.base import EVERYWHERE, FamilyExport, KeepInFp32
from stepwise.export.families.stable_diffusion import CLIP_TEXT, VAE_DECODER

SD3 = FamilyExport(
    keep_in_fp32={
        "clip_l": CLIP_TEXT,
        "clip_g": CLIP_TEXT,
        # transformers keeps wo in float32 for the same reason: what it adds to the residual stream
        # is greater than float16 can hold.
        "t5": (
            *EVERYWHERE,
            KeepInFp32("*.DenseReluDense.wo"),
            KeepInFp32("*.layer.*", ("Add",)),
            KeepInFp32("model.encoder", ("Where",)),
            # Distances between tokens become buckets by a logarithm, rounded down.
            KeepInFp32("*.SelfAttention", ("Add", "Div", "Log", "Mul")),
            # The tanh form of GELU takes a third power.
            KeepInFp32("*.DenseReluDense.act"),
        ),
        "transformer": (
            *EVERYWHERE,
            # Timesteps reach 1000, where float16 knows halves only.
            KeepInFp32("model.time_text_embed.time_proj"),
            KeepInFp32("*.net.0", ("Add", "Mul", "Pow", "Tanh")),
        ),
        "vae_decoder": VAE_DECODER,
    },
)
