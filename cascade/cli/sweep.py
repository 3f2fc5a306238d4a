"""`cascade sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, measuring
from cascade.errors import RecipeError


def sweep(
    pipeline: measuring.Pipeline,
    axes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[STAGE.]SETTING=VALUE,VALUE…]…",
            help="What to try, in all combinations. Default: guidance, temperature, augmentation "
            "level, steps and samplers, one change at a time.",
            show_default=False,
        ),
    ] = None,
    *,
    data: measuring.Data,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the results. Default: sweeps/NAME."),
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            "--num-images",
            "-n",
            min=2,
            help="Of each combination; with --budget at most. Default: 100, or what is held out.",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images of all combinations together: all on few images, then the best third on "
            "three times as many, and so on (successive halving).",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What decides: KID, FD; for restored pictures also PD, PSNR, SSIM.")
    ] = "KID",
    prefer: Annotated[
        str,
        typer.Option(
            help="quality, or speed: the fastest of those that are as good within the interval."
        ),
    ] = "quality",
    seed: measuring.Seed = 0,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the best settings into the pipeline.")
    ] = False,
    extractor: measuring.Extractor = "lite0",
    extractor_path: measuring.ExtractorPath = None,
    device: bulk.Device = None,
) -> None:
    """Find the settings of a pipeline that are best on held-out pictures.

    Every combination runs through the whole chain, with the same seeds. OUT gets report.html,
    strips.png and sweep.json. The same command again goes on where it stopped.

    Examples:

    cascade sweep emoji-256 --data heldout base.guidance=1,2,3 upsampler.augmentation_level=0,0.1

    cascade sweep photo-x4 --data 'heldout-*.tar' temperature=0.4,0.6,0.8 steps=5,15 --by PD

    cascade sweep my-pipeline --data heldout --budget 3000 --prefer speed --apply
    """
    from typing import get_args

    from cascade.cli.progress import TaskProgress
    from cascade.devices import find_device
    from cascade.pipeline import CascadePipeline
    from cascade.saving.atomic import check_writable_folder
    from cascade.sweeping.applying import apply_settings, check_applicable
    from cascade.sweeping.report import write_report, write_strips
    from cascade.sweeping.results import Preference
    from cascade.sweeping.sweep import sweep as try_all

    if prefer not in get_args(Preference):
        raise RecipeError(f"--prefer must be quality or speed, got {prefer!r}.")
    folder = check_applicable(pipeline) if apply else None
    loaded = CascadePipeline.from_pretrained(pipeline).to(find_device(device))
    out = out or Path("sweeps") / Path(pipeline).resolve().name
    check_writable_folder(out)
    with TaskProgress() as progress:
        found = try_all(
            loaded,
            data,
            axes or (),
            out=out,
            name=pipeline,
            num_images=num_images,
            budget_images=budget,
            by=by,
            prefer="speed" if prefer == "speed" else "quality",
            seed=seed,
            extractor=extractor,
            extractor_path=extractor_path,
            report=progress.update,
        )
    typer.echo("\n".join(found.lines()))
    found.save(out / "sweep.json")
    write_strips(found, out / "strips.png")
    write_report(found, out / "report.html")
    if folder is not None:
        files = apply_settings(folder, found.outcomes[found.best].candidate.settings)
        for file in files:
            typer.echo(f"wrote {file}")
        if not files:
            typer.echo(f"{folder} has these settings already.")
