"""The page's layout, and the handler of each button."""

from typing import Any

import gradio as gr

from stepwise.client import metadata
from stepwise.client.page import form, html
from stepwise.client.page.handlers import Page
from stepwise.client.page.session import HEADS
from stepwise.client.protocol import About

# A video has 1 + 4n frames.
_FRAMES_STEP = 4
# Keeps the uploaded file unchanged; the reader converts it to RGB.
_UPLOAD: dict[str, Any] = {
    "type": "filepath",
    "image_mode": None,
    "sources": ["upload"],
    "buttons": [],
    "height": 180,
    "min_width": 200,
}
_BLANK_SIDE = "the model's own"
_SIZE = "width x height or a ratio; blank is the model's own"


def blocks(page: Page) -> Any:
    """The page as gradio's ``Blocks``, without usage reports."""
    with gr.Blocks(title="Stepwise", analytics_enabled=False) as made:
        with gr.Row():
            with gr.Column(scale=2):
                fields = _fields(list(page.abouts), next(iter(page.abouts.values())))
                with gr.Row():
                    cancel = gr.Button("Cancel")
                    generate = gr.Button("Generate", variant="primary")
            with gr.Column(scale=3):
                pictures = _gallery()
                under_way = gr.HTML(html.under_way([], ""))
        log = _log()
        # The server limits how many requests run at once; a browser may queue more.
        made.queue(default_concurrency_limit=None)
        _choosing(page, fields)
        gr.on(
            [generate.click, fields["prompt"].submit],
            page.generate,
            inputs_kwargs={name: made for name, made in fields.items() if name != form.WORDS},
            outputs=[under_way, pictures, log],
            trigger_mode="multiple",
            **_QUIET,
        )
        cancel.click(page.cancel, outputs=under_way, trigger_mode="multiple", **_QUIET)
        made.unload(page.leave)
    return made


# The page shows progress itself, and its handlers are no public API.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _fields(pipelines: list[str], about: About) -> dict[str, Any]:
    """The form: a component for each setting, by setting name."""
    shown = form.shown(about)

    def field(kind: Any, name: str, label: str, **more: Any) -> None:
        fields[name] = kind(label=label, **shown.get(name, {}), **more)

    fields: dict[str, Any] = {}
    with gr.Row():
        several = len(pipelines) > 1
        field(gr.Dropdown, metadata.PIPELINE, "Pipeline", choices=pipelines, visible=several)
        field(gr.Dropdown, form.PRESET, "Preset")
    field(gr.Textbox, "prompt", "Prompt", lines=2, max_lines=6, autofocus=True)
    field(gr.Dropdown, form.WORDS, "Words", info="a choice is added to the prompt")
    field(gr.Textbox, "negative_prompt", "Negative prompt", placeholder="none")
    with gr.Row():
        field(gr.Dropdown, "sampler", "Sampler")
        field(gr.Slider, "num_images", "Pictures", step=1)
        field(gr.Slider, "frames", "Frames", step=_FRAMES_STEP)
    with gr.Row():
        field(gr.Slider, "steps", "Steps", step=1)
        field(gr.Slider, "guidance_scale", "Guidance", step=0.1)
        field(gr.Slider, "guidance_rescale", "Guidance rescale", step=0.05)
    with gr.Row():
        # gr.Number would turn a blank into 0.
        for side in ("height", "width"):
            field(gr.Textbox, side, side.title(), placeholder=_BLANK_SIDE, min_width=100)
        field(gr.Dropdown, "bucket", "Size", info=_SIZE, allow_custom_value=True, min_width=160)
        field(gr.Textbox, "seed", "Seed", placeholder="random, or -1", min_width=100)
        # A separate row would leave a gap while these are hidden.
        for name, label in form.IMAGES.items():
            field(gr.Image, name, label, **_UPLOAD)
    return fields


def _choosing(page: Page, fields: dict[str, Any]) -> None:
    """Fill the form when a pipeline, a preset or a word for the prompt is chosen."""
    pipeline, preset, prompt, words = (
        fields[name] for name in (metadata.PIPELINE, form.PRESET, "prompt", form.WORDS)
    )

    def fill(shown: form.Shown) -> dict[Any, Any]:
        return {fields[name]: gr.update(**properties) for name, properties in shown.items()}

    def choose_pipeline(name: str) -> dict[Any, Any]:
        return fill(form.shown(page.abouts[name]))

    def choose_preset(name: str, chosen: str) -> dict[Any, Any]:
        shown = form.shown(page.abouts[name], chosen)
        return fill({field: shown[field] for field in form.OF_PRESETS})

    def choose_word(text: str, word: str) -> tuple[str, None]:
        return form.with_word(text, word), None

    outputs = list(fields.values())
    pipeline.change(choose_pipeline, pipeline, outputs, **_QUIET)
    # Not ``input``, which also fires when a field is left unchanged.
    preset.select(choose_preset, [pipeline, preset], outputs, **_QUIET)
    words.select(choose_word, [prompt, words], [prompt, words], **_QUIET)


def _gallery() -> Any:
    return gr.Gallery(
        label="Pictures",
        show_label=False,
        columns=4,
        height=556,
        object_fit="contain",
        buttons=["download", "fullscreen"],
        interactive=False,
    )


def _log() -> Any:
    return gr.Dataframe(
        headers=list(HEADS),
        datatype="str",
        type="array",
        label="Requests",
        interactive=False,
        wrap=True,
        column_widths=["8%", "25%", "28%", "8%", "9%", "8%", "14%"],
    )
