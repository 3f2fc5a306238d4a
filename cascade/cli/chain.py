"""`cascade chain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cascade.pipeline import CascadePipeline


def chain(
    pipeline: Annotated[str, typer.Argument(help="A pipeline recipe: name or file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the saved pipeline.")],
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", "-s", help="NAME=RUN: the run that trained a stage; default: runs/RECIPE."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: fp32, bf16 or fp16.")] = "fp32",
    card: Annotated[
        Path | None,
        typer.Option(help="File with the text of the model card; default: one that is generated."),
    ] = None,
) -> None:
    """Join trained stages into one saved pipeline.

    Example: cascade chain emoji-256 --stage base=runs/emoji-64 --out my-pipeline
    """
    from cascade.building.pipelines import chain_pipeline
    from cascade.recipe.finding import find_recipe

    runs = {}
    for pair in stage or []:
        name, separator, run = pair.partition("=")
        if not separator or not run:
            raise typer.BadParameter(f"--stage takes NAME=RUN, got {pair!r}.")
        runs[name] = Path(run)
    chained = chain_pipeline(find_recipe(pipeline, "pipelines"), runs, out, dtype=dtype, card=card)
    typer.echo(f"{out} written; try: {_example(chained, out)}")


def _example(pipeline: CascadePipeline, folder: Path) -> str:
    """A command that uses a pipeline."""
    from cascade.conditioning.luminance import Luminance

    contract = pipeline.stages.first.contract
    if contract.condition(Luminance.name) is not None:
        return f"cascade colourise PICTURE --model {folder} -o coloured.png"
    if contract.needs_image:
        return f"cascade upscale PICTURE --model {folder} -o large.png"
    return f"cascade generate {folder} -n 4 -o out"
