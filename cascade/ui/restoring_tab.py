"""The tab of a model that was trained on pairs of pictures, as `cascade restore` uses it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cascade.bulk.restoring import Mending, prepare_restoring
from cascade.restoration.restoring import Restoration
from cascade.ui import fields
from cascade.ui.bulk_work import placed_inputs, request_of, run_bulk
from cascade.ui.jobs import Job
from cascade.ui.models import Model
from cascade.ui.panel import Panel, Site


def restore(
    job: Job, site: Site, uploads: Any, model: str, seed: Any, variants: Any, steps: Any
) -> None:
    """Restore uploaded pictures in the folder of a job.

    Args:
        job: the job.
        site: what all tabs share.
        uploads: paths of the uploaded files.
        model: name of a pipeline.
        seed: seed of the first variant.
        variants: number of seeds.
        steps: number of sampling steps, see `fields.steps_of`.
    """
    restoration = Restoration(seed=fields.whole(seed, "the seed"))
    count, steps = fields.whole(variants, "the number of seeds"), fields.steps_of(steps)
    pictures = placed_inputs(job, fields.uploaded(uploads), site.limits)
    request = request_of(job, pictures, model=model, site=site, steps=steps, seeds=count)
    run_bulk(
        job,
        lambda on_progress: prepare_restoring(
            request, restoration, Mending(), on_progress=on_progress
        ),
    )


def build(site: Site, models: Sequence[Model]) -> None:
    """Add the tab."""
    fields.lead("Restores images as the model learned from its pairs.")
    panel = Panel(site, "restore")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            files = fields.pictures_upload(site, "restore-files")
            model = fields.model_menu(models)
            with gr.Accordion("More settings", open=False, elem_id="restore-more"):
                seed, variants = fields.seed_field(), fields.variants_field()
                steps = fields.steps_field()
            panel.buttons("Restore")
        with gr.Column(scale=3, min_width=260):
            panel.results("The results appear here, with a slider between before and after.")
    panel.connect([files, model, seed, variants, steps], restore)
