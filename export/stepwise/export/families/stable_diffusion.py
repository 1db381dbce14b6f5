"""What the families of Stable Diffusion keep in float32 alike."""

from stepwise.export.families.base import EVERYWHERE, KeepInFp32

# Masked scores are the least float32. CLIP without a projection has no text_model inside.
CLIP_TEXT = (
    *EVERYWHERE,
    KeepInFp32("model", ("Where",)),
    KeepInFp32("model.text_model", ("Where",)),
    KeepInFp32("*.self_attn", ("Add",)),
)
# The residual stream of the decoders outgrows float16, and so does all that reads it before it is
# normalized.
VAE_DECODER = (
    *EVERYWHERE,
    KeepInFp32(""),
    KeepInFp32("*.norm?"),
    KeepInFp32("*.group_norm"),
    KeepInFp32("*.conv_norm_out"),
    KeepInFp32("*.resnets.?", ("Add",)),
    KeepInFp32("*.attentions.?", ("Add",)),
    KeepInFp32("*.conv_shortcut"),
    KeepInFp32("*.upsamplers.*"),
)
