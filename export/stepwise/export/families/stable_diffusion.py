"""The nodes that all Stable Diffusion families keep in float32."""

from stepwise.export.families.base import EVERYWHERE, KeepInFp32

# Masked scores are float32's lowest value. CLIP without a projection has no inner text_model.
CLIP_TEXT = (
    *EVERYWHERE,
    KeepInFp32("model", ("Where",)),
    KeepInFp32("model.text_model", ("Where",)),
    KeepInFp32("*.self_attn", ("Add",)),
)
# The decoders' residual stream overflows float16, and so do the nodes that read it before it is
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
