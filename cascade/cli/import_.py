"""`cascade import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cascade.cli.verbosity import note


def import_weights(
    source: Annotated[
        str,
        typer.Argument(help="A file or folder of weights, or a name on the Hub."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new stage.")],
    size: Annotated[int | None, typer.Option(min=1, help="Side of the images in pixels.")] = None,
    low_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of an upsampler's low-resolution images in pixels."),
    ] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Number of attention heads.")] = None,
    head_channels: Annotated[
        int | None, typer.Option(min=1, help="Channels of an attention head, instead of --heads.")
    ] = None,
    attention_order: Annotated[
        Literal["legacy", "new"] | None,
        typer.Option(help="Order of queries, keys and values; new is use_new_attention_order."),
    ] = None,
    noise_schedule: Annotated[
        Literal["linear", "cosine"] | None, typer.Option(help="Kind of the noise schedule.")
    ] = None,
    train_steps: Annotated[
        int | None, typer.Option(min=2, help="Timesteps in training (diffusion_steps).")
    ] = None,
    rescale_timesteps: Annotated[
        bool | None,
        typer.Option(
            "--rescale-timesteps/--no-rescale-timesteps",
            help="Whether the network's timesteps are rescaled to 1000.",
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Names of the classes, one on each line; default: numbers."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="Folder or Hub name of the text encoder.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the stage that is in the folder.")
    ] = False,
) -> None:
    """Make a stage from weights that another project trained.

    Supported are diffusers pipelines with a UNet2DModel, guided diffusion checkpoints (base models
    and upsamplers), and U-Nets of DeepFloyd IF in the diffusers layout. The options for sizes,
    heads, order, schedule and steps are for guided diffusion, whose files do not store them; the
    published checkpoints are recognised by their shapes.

    Examples:

    cascade import google/ddpm-celebahq-256 -o faces

    cascade import 64x64_diffusion.pt --class-names imagenet.txt -o imagenet-64

    cascade import model.pt --size 32 --heads 4 -o my-stage
    """
    from cascade.errors import OutputError
    from cascade.importing.importing import import_stage
    from cascade.saving.stage_folder import stage_in

    if stage_in(out) is not None and not overwrite:
        raise OutputError(f"{out} holds a stage already; choose another folder, or --overwrite.")
    stage = import_stage(
        source,
        size_px=size,
        low_size_px=low_size,
        heads=heads,
        head_channels=head_channels,
        attention_order=attention_order,
        noise_schedule=noise_schedule,
        train_steps=train_steps,
        rescale_timesteps=rescale_timesteps,
        class_names=None if class_names is None else _read_names(class_names),
        text_encoder=text_encoder,
    )
    stage.save_pretrained(out)
    takes = stage.contract.description
    note(f"{takes} -> {stage.space.size_text}, {stage.network.kind}, in {out}")


def _read_names(file: Path) -> list[str]:
    from cascade.errors import DataError

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}).") from error
    return [line.strip() for line in lines if line.strip()]
