"""The options that change how stages sample, shared by the commands that sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.verb import SAMPLER_NAMES

if TYPE_CHECKING:
    from cascade.pipeline import CascadePipeline
    from cascade.sampling.overrides import Overrides

Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps. Default: the model's.")]
SamplerName = Annotated[
    str | None,
    typer.Option(
        help=f"One of {SAMPLER_NAMES}, or the class name of a diffusers scheduler. Default: the "
        "model's."
    ),
]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance scale. Default: the model's.")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Scale of the noise: lower is smoother and less varied. Default: the model's.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[STAGE.]KEY=VALUE",
        help="Any sampling setting or sampler option, such as eta=0.5, for all stages or for one; "
        "may be repeated. It overrides the other options.",
    ),
]


def adapters(texts: list[str] | None) -> list[tuple[str, float]]:
    """Read the values of `--lora`: folders and scales.

    Raises:
        BadParameter: if a scale is not a number.
    """
    pairs = []
    for text in texts or []:
        folder, separator, scale = text.rpartition(":")
        if not separator or Path(text).exists():
            folder, scale = text, "1"
        try:
            pairs.append((folder, float(scale)))
        except ValueError as error:
            raise typer.BadParameter(
                f"--lora takes FOLDER or FOLDER:SCALE such as cats:0.7, got {text!r}."
            ) from error
    return pairs


def adapted(pipeline: CascadePipeline, texts: list[str] | None) -> CascadePipeline:
    """Add the adapters of `--lora` to a pipeline."""
    for folder, scale in adapters(texts):
        pipeline = pipeline.with_adapter(folder, scale)
    return pipeline


def check_without_lora(lora: list[str] | None, **flags: bool) -> None:
    """Check that nothing measured with an adapter is written into a pipeline without it.

    Raises:
        BadParameter: naming the option that would.
    """
    for name, is_on in flags.items():
        if lora and is_on:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} writes into the pipeline, which does not include "
                "the adapter of --lora; leave one of the two out."
            )


def check_as_saved(changes: Overrides, **flags: bool) -> None:
    """Check that nothing measured with other settings is written into a pipeline.

    Raises:
        BadParameter: naming the option that would.
    """
    for name, is_on in flags.items():
        if changes and is_on:
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} writes what holds for the pipeline's own settings; "
                "leave --steps and --set out."
            )


def overrides(changes: list[str] | None, **settings: Any) -> Overrides:
    """Collect the changes of a command line; those of `--set` override the single options."""
    from cascade.sampling.overrides import Overrides
    from cascade.sampling.per_stage import ALL

    return Overrides({ALL: settings}).with_later(parse(changes))


def parse(changes: list[str] | None) -> Overrides:
    """Read the values of `--set`.

    Raises:
        BadParameter: if a value is not KEY=VALUE or STAGE.KEY=VALUE.
    """
    from cascade.errors import ContractError
    from cascade.sampling.overrides import Overrides

    try:
        return Overrides.parse(changes or [])
    except ContractError as error:
        raise typer.BadParameter(f"--set: {error}") from error
