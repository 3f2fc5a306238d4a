"""The tab that upscales pictures, as `cascade upscale` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cascade.bulk.commands import prepare_upscaling
from cascade.restoration.upscaling import Upscaling
from cascade.ui import fields
from cascade.ui.bulk_work import placed_inputs, request_of, run_bulk
from cascade.ui.jobs import Job
from cascade.ui.models import Model
from cascade.ui.panel import Panel, Site

SCALES = (2.0, 3.0, 4.0, 6.0, 8.0)


def upscale(
    job: Job,
    site: Site,
    uploads: Any,
    model: str,
    scale: float,
    seed: Any,
    variants: Any,
    steps: Any,
) -> None:
    """Upscale uploaded pictures in the folder of a job.

    Args:
        job: the job.
        site: what all tabs share.
        uploads: paths of the uploaded files.
        model: name of a pipeline.
        scale: factor for both sides.
        seed: seed of the first variant.
        variants: number of seeds.
        steps: number of sampling steps, see `fields.steps_of`.
    """
    upscaling = Upscaling(scale=scale, seed=fields.whole(seed, "the seed"))
    count = fields.whole(variants, "the number of seeds")
    pictures = placed_inputs(job, fields.uploaded(uploads), site.limits, scale)
    steps = fields.steps_of(steps)
    request = request_of(job, pictures, model=model, site=site, steps=steps, seeds=count)
    run_bulk(
        job,
        lambda on_progress: prepare_upscaling(request, upscaling, on_progress=on_progress),
    )


def build(site: Site, models: Sequence[Model]) -> None:
    """Add the tab."""
    fields.lead("Upscales images. Drop one or many, then press Upscale.")
    panel = Panel(site, "upscale")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            files = fields.pictures_upload(site, "upscale-files")
            model = fields.model_menu(models)
            scales = sorted({*SCALES, float(models[0].scale)})
            scale = gr.Radio(
                [(f"{each:g}×", each) for each in scales],
                value=float(models[0].scale),
                label="Scale factor",
                elem_id="upscale-scale",
            )
            with gr.Accordion("More settings", open=False, elem_id="upscale-more"):
                seed, variants = fields.seed_field(), fields.variants_field()
                steps = fields.steps_field()
            panel.buttons("Upscale")
        with gr.Column(scale=3, min_width=260):
            panel.results("The results appear here, with a slider between before and after.")
    panel.connect([files, model, scale, seed, variants, steps], upscale)
