"""`cascade chain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import completing
from cascade.cli.verbosity import note


def chain(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="A pipeline recipe: name or file.", autocompletion=completing.pipeline_recipes
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the saved pipeline.")],
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", "-s", help="NAME=RUN: where a stage was trained; default: runs/RECIPE."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Precision of the weights: fp32, bf16 or fp16.")
    ] = "fp32",
    card: Annotated[
        Path | None,
        typer.Option(help="File with the text of the model card; default: a description."),
    ] = None,
    known_texts: Annotated[
        Path | None,
        typer.Option(
            help="File with one text per line; the pipeline stores their embeddings (at most 4 "
            "MiB per stage), so that these prompts need no text encoder."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the pipeline that is in the folder.")
    ] = False,
) -> None:
    """Join trained stages into one saved pipeline.

    Example: cascade chain emoji-1024 --stage base=runs/emoji-64-text --out my-pipeline
    """
    from cascade.building.pipelines import chain_pipeline
    from cascade.recipe.finding import find_recipe
    from cascade.tasks.table import find_task

    runs = {}
    for pair in stage or []:
        name, separator, run = pair.partition("=")
        if not separator or not run:
            raise typer.BadParameter(f"--stage takes NAME=RUN, got {pair!r}.")
        runs[name] = Path(run)
    chained = chain_pipeline(
        find_recipe(pipeline, "pipelines"),
        runs,
        out,
        dtype=dtype,
        card=card,
        known_texts=known_texts,
        overwrite=overwrite,
    )
    task = find_task(chained.stages.contracts)
    example = "" if task is None else f"; try: {task.command(str(out))}"
    note(f"{out} written{example}")
