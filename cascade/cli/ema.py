"""`cascade ema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.verbosity import note


def ema(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run with train.snapshot_every_images above 0.")
    ],
    width: Annotated[
        float,
        typer.Option(
            "--width", help="Share of the run that the average covers, such as 0.1; at most 0.28."
        ),
    ],
    at: Annotated[
        int | None,
        typer.Option("--at", help="Number of images seen; default: that of the last snapshot."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the stage; default: RUN/stage-WIDTH, which is replaced.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the stage that is in the folder.")
    ] = False,
) -> None:
    """Average the weights of a finished run over any width (post-hoc EMA).

    Examples:

    cascade train emoji-64-text train.snapshot_every_images=20_000

    cascade ema runs/emoji-64-text --width 0.08

    cascade chain emoji-1024 --stage base=runs/emoji-64-text/stage-0.080 --out mine
    """
    from cascade.errors import OutputError, WeightsError
    from cascade.saving.stage_folder import stage_in
    from cascade.training.averaging import reconstruct, snapshots

    folder = out or run / f"stage-{width:.3f}"
    is_own = out is None and not folder.is_symlink()
    if stage_in(folder) is not None and not is_own and not overwrite:
        raise OutputError(f"{folder} holds a stage already; choose another folder, or --overwrite.")
    run_snapshots = snapshots(run / "averages")
    if not run_snapshots:
        raise WeightsError(
            f"no snapshots in {run / 'averages'}; train with train.snapshot_every_images above 0."
        )
    images_seen = run_snapshots[-1].images_seen if at is None else at
    stage = reconstruct(run_snapshots, width, images_seen=images_seen)
    stage.save_pretrained(folder)
    note(f"wrote the stage to {folder}")
