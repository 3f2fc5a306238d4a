"""`cascade evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli import data_options, measuring, names, restoring, sampling, upscale
from cascade.cli.documents import AsJson, Document
from cascade.cli.verbosity import note

if TYPE_CHECKING:
    from cascade.evaluation.results import Evaluation

Train = Annotated[str | None, typer.Option(help="Training images, to look for copies of them.")]
NumImages = Annotated[
    int | None,
    typer.Option(
        "--num-images",
        "-n",
        min=1,
        help="Number of images. Default: one per held-out image, at most 1000.",
    ),
]
Card = Annotated[bool, typer.Option("--card", help="Write figures into the model card.")]
Lpips = Annotated[
    bool,
    typer.Option("--lpips", help="Also measure LPIPS, for results that have originals."),
]
LpipsPath = Annotated[
    Path | None,
    typer.Option(help="File with AlexNet's weights, to measure LPIPS without a download."),
]
Likelihood = Annotated[
    str | None,
    typer.Option(
        help="Measure the bits per dimension of each stage, on at most 100 images: bound for "
        "the variational bound, ode for the exact density of the probability flow."
    ),
]
DoubtSeeds = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Measure how well the standard deviation over that many seeds predicts errors, on "
        "at most 100 images; for results that have originals.",
    ),
]
ApplyDoubt = Annotated[
    bool,
    typer.Option(
        "--apply-doubt",
        help="With --doubt-seeds: save the calibration of deviations in the pipeline, so that "
        "--map shows expected errors. Use validation images.",
    ),
]
Beside = Annotated[
    list[Path] | None,
    typer.Option(
        "--beside",
        metavar="FILE",
        help="Weights of another upscaler (ESRGAN, SwinIR, HAT, SPAN ...) to measure on the same "
        "inputs; may be repeated.",
    ),
]
Report = Annotated[Path | None, typer.Option(help="HTML file to write.")]


def evaluate(
    pipeline: names.Pipeline,
    data: measuring.Data,
    train: Train = None,
    pairs: measuring.Pairs = None,
    value_range: data_options.Range = None,
    nodata: upscale.Nodata = None,
    axis: upscale.Axis = None,
    num_images: NumImages = None,
    seed: measuring.Seed = 0,
    report: Report = None,
    card: Card = False,
    extractor: measuring.Extractor = "lite0",
    extractor_path: measuring.ExtractorPath = None,
    lpips: Lpips = False,
    lpips_path: LpipsPath = None,
    alignment: measuring.Alignment = None,
    likelihood: Likelihood = None,
    doubt_seeds: DoubtSeeds = None,
    apply_doubt: ApplyDoubt = False,
    beside: Beside = None,
    steps: sampling.Steps = None,
    changes: sampling.Set = None,
    lora: names.Lora = None,
    device: restoring.Device = None,
    as_json: AsJson = False,
) -> Document | None:
    """Measure the quality of a pipeline and of each of its stages on held-out images.

    A generator is compared with the held-out images as a set. An upscaler or colouriser gets
    downscaled or greyscale copies of them, and each result is compared with its original.

    Examples:

    cascade evaluate emoji-1024 --data heldout --train train -n 200 --report report.html

    cascade evaluate photo-x4 --data 'heldout-*.tar' --card --json > scores.json

    cascade evaluate photo-x4 --data heldout --steps 4 --set temperature=0.6

    cascade evaluate photo-x4 --data heldout --beside RealESRGAN_x4plus.safetensors

    cascade evaluate runs/restore-pairs --data test/clean --pairs test/damaged

    cascade evaluate emoji-1024 --data heldout -n 40 --likelihood ode

    cascade evaluate photo-x4 --data heldout -n 40 --doubt-seeds 8 --report report.html
    """
    from cascade.cli.progress import TaskProgress
    from cascade.devices import find_device
    from cascade.evaluation.evaluate import evaluate as measure
    from cascade.evaluation.report import check_output
    from cascade.pipeline import CascadePipeline
    from cascade.saving.pipelines import card_folder, changeable_folder

    if report is not None:
        check_output(report)
    sampling.check_without_lora(lora, card=card, apply_doubt=apply_doubt)
    overrides = sampling.overrides(changes, steps=steps)
    sampling.check_as_saved(overrides, card=card, apply_doubt=apply_doubt)
    if apply_doubt and doubt_seeds is None:
        raise typer.BadParameter("--apply-doubt needs --doubt-seeds; add --doubt-seeds 8.")
    place = changeable_folder(pipeline) if apply_doubt else None
    folder = card_folder(pipeline) if card else None
    loaded = sampling.adapted(CascadePipeline.from_pretrained(pipeline), lora)
    loaded = loaded.with_sampling(overrides).to(find_device(device))
    with TaskProgress() as progress:
        evaluation = measure(
            loaded,
            data,
            name=" + ".join([pipeline, *(lora or [])]),
            train=train,
            pairs=pairs,
            range=value_range,
            nodata=nodata,
            axis=axis,
            num_images=num_images,
            seed=seed,
            extractor=extractor,
            extractor_path=extractor_path,
            lpips=lpips,
            lpips_path=lpips_path,
            alignment=alignment,
            likelihood=likelihood,  # pyright: ignore[reportArgumentType]  # checked there
            doubt_seeds=doubt_seeds,
            beside=beside or (),
            progress=progress.update,
        )
    if overrides:
        texts = [*([] if steps is None else [f"steps={steps}"]), *(changes or [])]
        line = f"measured with {', '.join(texts)} in place of the pipeline's own settings."
        evaluation = replace(evaluation, notes=[*evaluation.notes, line])
    return _results(evaluation, report, folder, place, as_json=as_json)


def _results(
    evaluation: Evaluation,
    report: Path | None,
    folder: Path | None,
    place: Path | None,
    *,
    as_json: bool,
) -> Document | None:
    """Print the figures, or return them as JSON, and write what is asked for.

    Args:
        evaluation: the figures.
        report: file of the report; None for none.
        folder: folder of the model card; None for none.
        place: folder of the pipeline that keeps the expected error; None for none.
        as_json: whether to return a document.
    """
    from cascade.evaluation.card import write_results
    from cascade.evaluation.report import write_report

    if not as_json:
        typer.echo("\n".join(evaluation.lines()))
    if report is not None:
        write_report(evaluation, report)
        note(f"wrote {report}")
    if folder is not None:
        write_results(evaluation, folder)
    if place is not None and evaluation.expected_error is not None:
        note(f"wrote {evaluation.expected_error.save(place)}", is_result=not as_json)
    return evaluation.to_dict() if as_json else None
