"""The tab that repaints a part of a picture, as `cascade edit` does, with a mask to paint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cascade.bulk.editing import Repainting, prepare_editing
from cascade.errors import ContractError
from cascade.restoration.editing import Editing
from cascade.ui import fields
from cascade.ui.bulk_work import placed_inputs, request_of, run_bulk
from cascade.ui.jobs import Job
from cascade.ui.models import Model
from cascade.ui.painting import painting, write_mask, write_strokes
from cascade.ui.panel import Panel, Site
from cascade.ui.style import with_strokes
from cascade.ui.subject_fields import SubjectFields

PAINTING = "edit-mask"
MASK = "cascade-mask.png"  # in the zip, for --mask of the command


def edit(
    job: Job,
    site: Site,
    upload: Any,
    model: str,
    seed: Any,
    variants: Any,
    steps: Any,
    strength: float,
    passes: Any,
    prompt: str,
    negative: str,
    *classes_and_strokes: Any,
) -> None:
    """Repaint what was painted over, in the folder of a job.

    Args:
        job: the job.
        site: what all tabs share.
        upload: path of the uploaded file.
        model: name of a pipeline.
        seed: seed of the first variant.
        variants: number of seeds.
        steps: number of sampling steps, see `fields.steps_of`.
        strength: below 1, some of what the picture shows is kept.
        passes: how often a stage that starts from noise goes over its steps where pixels around
            the hole are known, see `fields.whole_setting`; not used if nothing was painted.
        prompt: what to draw; empty for anything.
        negative: what not to draw; empty for nothing.
        classes_and_strokes: a class name or None for each label field, and the strokes of the mask,
            see `write_strokes`.
    """
    *classes, strokes = classes_and_strokes
    resamplings = fields.whole_setting(passes, "the number of passes")
    (picture,) = placed_inputs(job, fields.uploaded(upload), site.limits)
    painted = write_strokes(strokes, job.folder / "strokes.png", site.limits)
    mask = None if painted is None else write_mask(painted, picture, job.folder / MASK)
    if mask is None and strength == 1:
        raise ContractError("paint over the area to inpaint, or lower the strength.")
    editing = Editing(strength=strength, resamplings=None if mask is None else resamplings)
    labels = ",".join(each for each in classes if each)
    words = {"prompt": prompt, "negative_prompt": negative, "labels": labels}
    repainting = Repainting(
        editing=editing,
        mask=mask,
        words={name: text for name, text in words.items() if text},
        seed=fields.whole(seed, "the seed"),
    )
    count, steps = fields.whole(variants, "the number of seeds"), fields.steps_of(steps)
    request = request_of(job, [picture], model=model, site=site, steps=steps, seeds=count)
    run_bulk(
        job,
        lambda on_progress: prepare_editing(request, repainting, on_progress=on_progress),
        {} if mask is None else {MASK: mask},
    )


def build(site: Site, models: Sequence[Model]) -> None:
    """Add the tab. Models that were trained with a mask come first, since they fit better."""
    models = sorted(models, key=lambda model: not model.fills)
    fields.lead(
        "Inpaints a part of an image. Drop an image, paint over that part, then press Edit."
    )
    panel, subject = Panel(site, "edit"), SubjectFields(models)
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            file = fields.upload("Image", many=False, name="edit-files")
            notice = gr.HTML(f'<p class="line note">{fields.limits_text(site.limits)}</p>')
            canvas = gr.HTML("")
            subject.build()
            with gr.Accordion("More settings", open=False, elem_id="edit-more"):
                strength = gr.Slider(
                    0.05, 1, value=1, step=0.05, label="Strength",
                    info="Below 1, some of the content of the image is kept.",
                )  # fmt: skip
                passes = fields.passes_field(models[0])
                seed, variants = fields.seed_field(), fields.variants_field()
                steps = fields.steps_field()
            strokes = gr.Textbox("", visible=False)
            subject.on_model(lambda model: gr.update(**fields.passes_of(model)), [passes])
            panel.buttons("Edit")
        with gr.Column(scale=3, min_width=260):
            panel.results(
                "The result appears here. Pixels outside your strokes keep their exact values."
            )

    def look(request: gr.Request, value: Any) -> tuple[str, str]:
        good, text = fields.look_at(site, request.session_hash, value)
        html, fault = fields.painted(
            lambda: painting(good[0] if good else None, PAINTING, colours=False)
        )
        return text + fault, html

    fields.on_upload(file, look, [notice, canvas])
    subject.connect(
        panel,
        [file, subject.model, seed, variants, steps, strength, passes],
        edit,
        after=[strokes],
        js=with_strokes(PAINTING),
    )
