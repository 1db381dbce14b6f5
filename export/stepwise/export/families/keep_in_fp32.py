"""The parts of each component that stay in float32 when the rest is computed in float16."""

import ast
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

_SCOPES = "pkg.torch.onnx.name_scopes"
# How the tracer spells a part of a module that looks its attributes up itself, as diffusers' do.
_SPELLED = re.compile(r"\.__dict__\['_modules'\]\['(\w+)'\]")


@dataclass(frozen=True)
class Island:
    """Nodes of the torch module whose dotted path matches ``module``, where ``*`` is any text.

    ``operators`` are the ONNX operators among them that are meant; none means all.
    """

    module: str
    operators: tuple[str, ...] = ()


# What sums over many values, and what a picture's rounding hangs on.
_EVERYWHERE = (
    Island("*", ("InstanceNormalization", "LayerNormalization", "ReduceMean", "Softmax")),
    Island("*norm"),
)
# Masked scores are the least float32. CLIP without a projection has no text_model inside.
_CAUSAL_MASK = (
    Island("model", ("Where",)),
    Island("model.text_model", ("Where",)),
    Island("*.self_attn", ("Add",)),
)

# The residual stream of EasyAnimate's autoencoder, and what reads it before it is normalized.
_VIDEO_STREAM = (
    Island("*.convs.?", ("Add", "Div")),
    Island("*.shortcut"),
    Island("*.upsampler*"),
    Island("*.downsampler*"),
)

ISLANDS: dict[str, tuple[Island, ...]] = {
    "clip_l": (*_EVERYWHERE, *_CAUSAL_MASK),
    "clip_g": (*_EVERYWHERE, *_CAUSAL_MASK),
    # transformers keeps wo in float32 for the same reason: what it adds to the residual stream
    # is greater than float16 can hold.
    "t5": (
        *_EVERYWHERE,
        Island("*.DenseReluDense.wo"),
        Island("*.layer.*", ("Add",)),
        Island("model.encoder", ("Where",)),
        # Distances between tokens become buckets by a logarithm, rounded down.
        Island("*.SelfAttention", ("Add", "Div", "Log", "Mul")),
        # The tanh form of GELU takes a third power.
        Island("*.DenseReluDense.act"),
    ),
    # Llama's kind of model. A few values of its residual stream reach tens of thousands, what adds
    # them to it is as large, and biases make its attention scores outgrow float16.
    "qwen": (
        *_EVERYWHERE,
        Island("", ("Where",)),
        Island("model.rotary_emb"),
        Island("*.self_attn", ("Add", "MatMul", "Mul")),
        Island("*.mlp", ("Mul",)),
        Island("*.mlp.down_proj"),
        Island("model.layers.?", ("Add",)),
        Island("model.layers.??", ("Add",)),
    ),
    # SD3's and EasyAnimate's, which have other modules.
    "transformer": (
        *_EVERYWHERE,
        # Timesteps reach 1000, where float16 knows halves only.
        Island("model.time_text_embed.time_proj"),
        Island("model.time_proj"),
        # An RMSNorm of texts.
        Island("model.text_proj.0"),
        Island("*.net.0", ("Add", "Mul", "Pow", "Tanh")),
    ),
    "unet": (
        *_EVERYWHERE,
        Island("*.norm?"),
        Island("*.conv_norm_out"),
        # Timesteps and sizes in pixels reach 1000 and more, where float16 knows halves at best.
        Island("model.time_proj"),
        Island("model.add_time_proj"),
    ),
    # The residual stream of Stable Diffusion's decoders outgrows float16, and so does all that
    # reads it before it is normalized.
    "vae_decoder": (
        *_EVERYWHERE,
        Island(""),
        Island("*.norm?"),
        Island("*.group_norm"),
        Island("*.conv_norm_out"),
        Island("*.resnets.?", ("Add",)),
        Island("*.attentions.?", ("Add",)),
        Island("*.conv_shortcut"),
        Island("*.upsamplers.*"),
        *_VIDEO_STREAM,
    ),
    "vae_encoder": (
        *_EVERYWHERE,
        Island(""),
        Island("*.norm?"),
        Island("*.conv_norm_out"),
        *_VIDEO_STREAM,
    ),
}


def module_of(node: ir.Node) -> str:
    """The dotted path of the torch module that a node was traced from; "" is the outermost."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return _SPELLED.sub(r".\1", str(scopes[-2])) if len(scopes) > 1 else ""


def in_island(node: ir.Node, component: str) -> bool:
    """Whether a node of a component stays in float32."""
    module = module_of(node)
    return is_single(module, component) or any(
        fnmatchcase(module, island.module) and node.op_type in island.operators
        for island in ISLANDS[component]
    )


def is_single(module: str, component: str) -> bool:
    """Whether a whole torch module of a component stays in float32, and so do its weights."""
    return any(
        fnmatchcase(module, island.module) and not island.operators for island in ISLANDS[component]
    )
