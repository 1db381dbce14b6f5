"""Exporter settings of Stable Diffusion 3."""

from stepwise.export.families.base import EVERYWHERE, FamilyExport, KeepInFp32
from stepwise.export.families.stable_diffusion import CLIP_TEXT, VAE_DECODER

SD3 = FamilyExport(
    keep_in_fp32={
        "clip_l": CLIP_TEXT,
        "clip_g": CLIP_TEXT,
        # wo adds values to the residual stream that float16 cannot hold; transformers keeps it in
        # float32 for the same reason.
        "t5": (
            *EVERYWHERE,
            KeepInFp32("*.DenseReluDense.wo"),
            KeepInFp32("*.layer.*", ("Add",)),
            KeepInFp32("model.encoder", ("Where",)),
            # A logarithm, rounded down, turns distances between tokens into buckets.
            KeepInFp32("*.SelfAttention", ("Add", "Div", "Log", "Mul")),
            # The tanh form of GELU computes a third power.
            KeepInFp32("*.DenseReluDense.act"),
        ),
        "transformer": (
            *EVERYWHERE,
            # Timesteps reach 1000, where float16 has steps of 0.5.
            KeepInFp32("model.time_text_embed.time_proj"),
            KeepInFp32("*.net.0", ("Add", "Mul", "Pow", "Tanh")),
        ),
        "vae_decoder": VAE_DECODER,
    },
)
