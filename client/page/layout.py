"""What is where on the page, and which handler answers which button."""

from typing import Any

import gradio as gr

from client import png
from client.messages import About
from client.page import html
from client.page.handlers import Page
from client.page.session import HEADS

_BLANK_SIDE = "the model's own"


def blocks(page: Page) -> Any:
    """The page as gradio's ``Blocks``. It tells nobody of its use."""
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
        # The server decides how many run at once, and each browser may ask for more meanwhile.
        made.queue(default_concurrency_limit=None)
        _choosing_a_pipeline(page, fields)
        gr.on(
            [generate.click, fields["prompt"].submit],
            page.generate,
            inputs_kwargs=fields,
            outputs=[under_way, pictures, log],
            trigger_mode="multiple",
            **_QUIET,
        )
        cancel.click(page.cancel, outputs=under_way, trigger_mode="multiple", **_QUIET)
        made.unload(page.leave)
    return made


# Only the page's own browsers are meant to call, and it shows progress by itself.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def _fields(pipelines: list[str], about: About) -> dict[str, Any]:
    """The form: a component for each setting, by the name that a request has for it."""
    fields = {
        png.PIPELINE: gr.Dropdown(pipelines, label="Pipeline", visible=len(pipelines) > 1),
        "prompt": gr.Textbox(label="Prompt", lines=2, max_lines=6, autofocus=True),
        "negative_prompt": gr.Textbox(label="Negative prompt"),
    }
    with gr.Row():
        fields["sampler"] = gr.Dropdown(label="Sampler", **_samplers(about))
        fields["num_images"] = gr.Slider(label="Pictures", step=1, **_range(about, "num_images"))
    with gr.Row():
        fields["steps"] = gr.Slider(label="Steps", step=1, **_range(about, "steps"))
        fields["guidance_scale"] = gr.Slider(
            label="Guidance", step=0.1, **_range(about, "guidance_scale")
        )
    with gr.Row():
        # Not gr.Number, whose blank is 0.
        fields["height"] = gr.Textbox(label="Height", placeholder=_BLANK_SIDE, min_width=100)
        fields["width"] = gr.Textbox(label="Width", placeholder=_BLANK_SIDE, min_width=100)
        fields["seed"] = gr.Textbox(label="Seed", placeholder="random", min_width=100)
    return fields


def _range(about: About, name: str) -> dict[str, Any]:
    minimum, maximum = about.ranges[name]
    return {"minimum": minimum, "maximum": maximum, "value": about.defaults[name]}


def _samplers(about: About) -> dict[str, Any]:
    return {"choices": list(about.samplers), "value": about.defaults["sampler"]}


def _choosing_a_pipeline(page: Page, fields: dict[str, Any]) -> None:
    """Give the form the ranges and defaults of the pipeline that is chosen."""
    ranged = ("num_images", "steps", "guidance_scale")

    def chosen(pipeline: str) -> list[Any]:
        about = page.abouts[pipeline]
        ranges = (_range(about, name) for name in ranged)
        return [gr.update(**settings) for settings in (_samplers(about), *ranges)]

    outputs = [fields[name] for name in ("sampler", *ranged)]
    fields[png.PIPELINE].change(chosen, fields[png.PIPELINE], outputs, **_QUIET)


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
