"""`cascade generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    pipeline: Annotated[
        str, typer.Argument(help="A bundled pipeline, a saved one's folder, or a Hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")],
    num_images: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Of the first picture; the others count up. Default: new.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            "-c",
            help="Class, such as cat-face or cat-face,noto; several take turns. Default: drawn.",
        ),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(help="Per stage, such as 50,25, or one number for all.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddim, ddpm, dpmsolver++, unipc, heun, euler; per stage too.")
    ] = None,
    guidance: Annotated[
        str | None, typer.Option(help="Classifier-free guidance scale, per stage or for all.")
    ] = None,
    augmentation: Annotated[
        float | None, typer.Option(help="Augmentation level of the upsamplers.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures at a time.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; default: the best that is there.")
    ] = None,
    keep_intermediates: Annotated[
        bool, typer.Option("--keep-intermediates", help="Also write the earlier stages' pictures.")
    ] = False,
) -> None:
    """Make pictures: numbered PNGs with their seed and settings inside, and grid.png.

    Examples:

    cascade generate emoji-256 -n 16 -o out

    cascade generate emoji-256 -n 4 --class cat-face,noto --seed 7 --steps 50,25 -o cats
    """
    from cascade.cli.progress import SamplingProgress
    from cascade.generation import Generation, generate_files

    wanted = Generation(
        num_images=num_images,
        seed=seed,
        classes=classes or [],
        steps=_per_stage(steps, int, "--steps"),
        sampler=_per_stage(sampler, str, "--sampler"),
        guidance=_per_stage(guidance, float, "--guidance"),
        augmentation_level=augmentation,
        batch_size=batch_size,
        device=device,
        keep_intermediates=keep_intermediates,
    )
    with SamplingProgress(num_images) as progress:
        written = generate_files(pipeline, out, wanted, callback=progress.on_step)
    typer.echo(f"{len(written)} pictures and grid.png in {out}")


def _per_stage(text: str | None, kind: type, option: str):
    """One value, or a list of them split at commas."""
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{option} takes numbers such as 50 or 50,25, got {text!r}."
        ) from error
    return values[0] if len(values) == 1 else values
