"""The tab that generates pictures, as `cascade generate` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from cascade.devices import find_device
from cascade.generation.files import GeneratedFiles, generate_files
from cascade.generation.request import Generation
from cascade.pipeline import CascadePipeline
from cascade.sampling.overrides import Overrides
from cascade.ui import fields
from cascade.ui.jobs import Job, Result
from cascade.ui.models import Model
from cascade.ui.panel import Panel, Site
from cascade.ui.subject_fields import SubjectFields

MOST_PICTURES = 64


def generate(
    job: Job,
    site: Site,
    model: str,
    count: Any,
    seed: Any,
    steps: Any,
    guidance: Any,
    prompt: str,
    negative: str,
    *classes: str | None,
) -> None:
    """Generate pictures in the folder of a job.

    Args:
        job: the job.
        site: what all tabs share.
        model: name of a pipeline.
        count: number of pictures.
        seed: seed of the first picture.
        steps: number of sampling steps of all stages, see `fields.steps_of`.
        guidance: scale of classifier-free guidance of all stages, see `fields.setting`.
        prompt: what to draw; empty for anything.
        negative: what not to draw; empty for nothing.
        classes: a class name, or nothing, for each label field.
    """
    pipeline = CascadePipeline.from_pretrained(model).to(find_device(site.device))
    names = pipeline.stages.names
    settings = {"steps": fields.steps_of(steps), "guidance": fields.setting(guidance, "guidance")}
    labels = ",".join(each for each in classes if each)
    generation = Generation(
        num_images=fields.whole(count, "the number of images"),
        prompts=[prompt] if prompt else [],
        negative_prompt=negative or None,
        seed=fields.whole(seed, "the seed"),
        classes=[labels] if labels else [],
        overrides=Overrides().per_stage(names, names, **settings),
        signer=site.signer,
    )

    def on_step(pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        number, total = list(names).index(pipeline.current_stage), pipeline.num_timesteps
        share = (number + (step + 1) / max(1, total)) / len(names)
        text = f"Stage {number + 1} of {len(names)}, step {step + 1} of {total}"
        job.show(share=min(1.0, share), text=text)

    folder = job.folder / "results"
    files = generate_files(pipeline, folder, generation, name=model, callback=on_step)
    _show(job, files, fields.whole(seed, "the seed"))


def _show(job: Job, files: GeneratedFiles, seed: int) -> None:
    job.offer(
        [
            Result(caption=f"seed {seed + number}", file=file)
            for number, file in enumerate(files.pictures)
        ]
    )
    everything = [*files.pictures, files.grid, *([] if files.index is None else [files.index])]
    job.pack({file.name: file for file in everything})


def build(site: Site, models: Sequence[Model]) -> None:
    """Add the tab."""
    fields.lead("Generates images. The same seed generates the same images again.")
    panel, subject = Panel(site, "generate"), SubjectFields(models)
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            subject.build()
            seed = fields.seed_field("Of the first image; the others count up.")
            count = gr.Slider(1, MOST_PICTURES, value=4, step=1, label="Images")
            with gr.Accordion("More settings", open=False, elem_id="generate-more"):
                steps = fields.steps_field()
                guidance = fields.setting_field(
                    "Guidance", "How closely to follow the choice above, such as 2."
                )
            panel.buttons("Generate")
        with gr.Column(scale=3, min_width=260):
            panel.results("The images appear here.")
    subject.connect(panel, [subject.model, count, seed, steps, guidance], generate)
