"""The arguments that name a pipeline or a recipe, shared by the commands that take one."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import completing

Pipeline = Annotated[
    str,
    typer.Argument(
        help="A bundled pipeline, a Hub id, or the folder of a pipeline, a stage or a run.",
        autocompletion=completing.pipelines,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="openvino, or a folder of cascade export; both compute on the CPU."
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FOLDER[:SCALE]",
        help="An adapter (train.lora), and the share of its change; may be repeated.",
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        help="A stage or pipeline recipe: name or file.", autocompletion=completing.recipes
    ),
]
StageRecipe = Annotated[
    str,
    typer.Argument(help="A stage recipe: name or file.", autocompletion=completing.stage_recipes),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(help="Changes as key=value.", autocompletion=completing.recipe_keys),
]
