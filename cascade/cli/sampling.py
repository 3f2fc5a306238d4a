"""The options that change how stages sample, shared by the commands that sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cascade.sampling.settings import Overrides

Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps. Default: the model's.")]
Sampler = Annotated[
    str | None,
    typer.Option(help="ddim, ddpm, dpmsolver++, unipc, heun or euler. Default: the model's."),
]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance scale. Default: the model's.")
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Lower is calmer, higher is bolder. Default: the model's."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any sampling setting, as KEY=VALUE or STAGE.KEY=VALUE, such as eta=0.5."
    ),
]


def overrides(changes: list[str] | None, **settings: Any) -> Overrides:
    """The changes of a command line: single options for all stages, then those of `--set`.

    Raises:
        ContractError: if a change is not KEY=VALUE.
    """
    from cascade.sampling.settings import ALL, Overrides

    return Overrides({ALL: settings}).with_later(Overrides.parse(changes or []))
