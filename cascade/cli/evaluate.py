"""`cascade evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, measuring


def evaluate(
    pipeline: measuring.Pipeline,
    data: measuring.Data,
    train: Annotated[
        str | None, typer.Option(help="Training pictures, to look for copies of them.")
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images",
            "-n",
            min=1,
            help="To make, or to restore. Default: as many as are held out, at most 1000.",
        ),
    ] = None,
    seed: measuring.Seed = 0,
    report: Annotated[Path | None, typer.Option(help="HTML file to write.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Write the figures into the pipeline's model card."),
    ] = False,
    extractor: measuring.Extractor = "lite0",
    extractor_path: measuring.ExtractorPath = None,
    lpips: Annotated[
        bool, typer.Option("--lpips", help="Measure LPIPS of restored pictures too.")
    ] = False,
    lpips_path: Annotated[
        Path | None,
        typer.Option(help="The same with AlexNet's weights of a file, without a download."),
    ] = None,
    device: bulk.Device = None,
) -> None:
    """Say how good a pipeline is on held-out pictures, and which stage holds it back.

    A pipeline that makes pictures is compared with the held-out ones as a set; one that enlarges or
    colours gets them made small or grey, and is compared picture by picture.

    Examples:

    cascade evaluate emoji-256 --data heldout --train pictures -n 200 --report report.html

    cascade evaluate photo-x4 --data 'heldout-*.tar' --json scores.json --card
    """
    from cascade.cli.progress import TaskProgress
    from cascade.devices import find_device
    from cascade.evaluation.card import write_results
    from cascade.evaluation.evaluate import evaluate as measure
    from cascade.evaluation.report import check_outputs, write_report
    from cascade.pipeline import CascadePipeline
    from cascade.saving.pipelines import changeable_folder

    check_outputs(json, report)
    folder = changeable_folder(pipeline) if card else None
    loaded = CascadePipeline.from_pretrained(pipeline).to(find_device(device))
    with TaskProgress() as progress:
        found = measure(
            loaded,
            data,
            name=pipeline,
            train=train,
            num_images=num_images,
            seed=seed,
            extractor=extractor,
            extractor_path=extractor_path,
            lpips=lpips,
            lpips_path=lpips_path,
            progress=progress.update,
        )
    typer.echo("\n".join(found.lines()))
    if json is not None:
        found.save(json)
    if report is not None:
        write_report(found, report)
    if folder is not None:
        write_results(found, folder)
