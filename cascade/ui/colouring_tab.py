"""The tab that colours grey pictures, as `cascade colourise` does, with hints to paint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cascade.bulk.commands import prepare_colouring
from cascade.restoration.colouring import Colouring
from cascade.ui import fields
from cascade.ui.bulk_work import placed_inputs, request_of, run_bulk
from cascade.ui.jobs import Job
from cascade.ui.models import Model
from cascade.ui.painting import painting, write_strokes
from cascade.ui.panel import Panel, Site
from cascade.ui.style import with_strokes

PAINTING = "colour-hints"
HINTS = "cascade-hints.png"  # in the zip, for --hints of the command


def colourise(
    job: Job,
    site: Site,
    uploads: Any,
    model: str,
    seed: Any,
    variants: Any,
    steps: Any,
    strokes: str,
) -> None:
    """Colour uploaded pictures in the folder of a job.

    Args:
        job: the job.
        site: what all tabs share.
        uploads: paths of the uploaded files.
        model: name of a pipeline.
        seed: seed of the first variant.
        variants: number of seeds.
        steps: number of sampling steps, see `fields.steps_of`.
        strokes: what was painted on the picture, see `write_strokes`; empty for nothing.
    """
    colouring = Colouring(seed=fields.whole(seed, "the seed"))
    count = fields.whole(variants, "the number of seeds")
    pictures = placed_inputs(job, fields.uploaded(uploads), site.limits)
    hints = write_strokes(strokes, job.folder / HINTS, site.limits)
    steps = fields.steps_of(steps)
    request = request_of(job, pictures, model=model, site=site, steps=steps, seeds=count)
    run_bulk(
        job,
        lambda on_progress: prepare_colouring(
            request, colouring, hints=hints, recolour=True, on_progress=on_progress
        ),
        {} if hints is None else {HINTS: hints},
    )


def build(site: Site, models: Sequence[Model]) -> None:
    """Add the tab."""
    fields.lead(
        "Colourises greyscale images. The colours are plausible, but not always the true ones: "
        "try several seeds, or paint a few strokes of the colours that you know."
    )
    panel = Panel(site, "colourise")
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            files = fields.upload("Images", many=True, name="colourise-files")
            notice = gr.HTML(f'<p class="line note">{fields.limits_text(site.limits)}</p>')
            with gr.Accordion(
                "Paint known colours (optional)", open=True, visible=False
            ) as canvas_place:
                canvas = gr.HTML("")
            model = fields.model_menu(models)
            with gr.Accordion("More settings", open=False, elem_id="colourise-more"):
                seed, variants = fields.seed_field(), fields.variants_field()
                steps = fields.steps_field()
            strokes = gr.Textbox("", visible=False)
            panel.buttons("Colourise")
        with gr.Column(scale=3, min_width=260):
            panel.results("The results appear here, with a slider between before and after.")

    def look(request: gr.Request, value: Any) -> tuple[str, Any, str]:
        good, text = fields.look_at(site, request.session_hash, value)
        picture = good[0] if len(good) == 1 else None
        html, fault = fields.painted(lambda: painting(picture, PAINTING, colours=True))
        return text + fault, gr.update(visible=bool(html)), html

    fields.on_upload(files, look, [notice, canvas_place, canvas])
    panel.connect(
        [files, model, seed, variants, steps, strokes], colourise, js=with_strokes(PAINTING)
    )
