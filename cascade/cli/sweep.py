"""`cascade sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from cascade.cli import data_options, measuring, names, restoring, sampling, upscale
from cascade.cli.verbosity import note
from cascade.errors import RecipeError

if TYPE_CHECKING:
    from cascade.sampling.settings import SamplingSettings
    from cascade.sweeping.results import Sweep


Axes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STAGE.]SETTING=VALUE,VALUE…",
        help="Values to try, in all combinations, of any sampling setting or sampler option. "
        "Default: guidance, temperature, augmentation level, steps, timestep shifts and "
        "samplers, one change at a time; with --prefer speed few steps, together with "
        "temperatures.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the results. Default: sweeps/NAME.")
]
NumImages = Annotated[
    int | None,
    typer.Option(
        "--num-images",
        "-n",
        min=2,
        help="Images per combination; with --budget, the maximum. Default: as many as are held "
        "out, but at most 100, or 1000 with --budget.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Images of all combinations together: try all on few images, then the best third on "
        "three times as many, and so on (successive halving).",
    ),
]
By = Annotated[
    str,
    typer.Option(
        help="The figure to rank by: KID, FD; for upscalers and colourisers also PD, PSNR, SSIM; "
        "with --alignment also R@1, R@5."
    ),
]
Prefer = Annotated[
    str,
    typer.Option(
        help="quality: the combination with the best figure; speed: the fastest whose figure is "
        "within half of the best one's interval, or within --tolerance."
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        help="With --prefer speed: the share of the best figure by which the chosen one may be "
        "worse, such as 0.05. If the best figure's interval includes zero, half of the interval "
        "counts instead."
    ),
]
Apply = Annotated[
    bool,
    typer.Option(
        "--apply", help="Save the best settings in the pipeline, and print them for its recipe."
    ),
]


def sweep(
    pipeline: names.Pipeline,
    axes: Axes = None,
    *,
    data: measuring.Data,
    pairs: measuring.Pairs = None,
    value_range: data_options.Range = None,
    nodata: upscale.Nodata = None,
    axis: upscale.Axis = None,
    out: Out = None,
    num_images: NumImages = None,
    budget: Budget = None,
    by: By = "KID",
    prefer: Prefer = "quality",
    tolerance: Tolerance = None,
    seed: measuring.Seed = 0,
    apply: Apply = False,
    extractor: measuring.Extractor = "lite0",
    extractor_path: measuring.ExtractorPath = None,
    alignment: measuring.Alignment = None,
    lora: names.Lora = None,
    device: restoring.Device = None,
) -> None:
    """Find the sampling settings of a pipeline that are best on validation images.

    Every combination runs through the whole chain with the same seeds. OUT gets report.html,
    strips.png and sweep.json. The same command resumes where it stopped.

    Evaluate the pipeline on other images afterwards: figures on images that settings were chosen
    on are too good.

    Examples:

    cascade sweep emoji-1024 --data validation base.guidance=1,2,3 upsampler_256.steps=2,4,8

    cascade sweep emoji-1024 --data validation 'base.guidance_interval=[0.3,3],[0,5]'

    cascade sweep photo-x4 --data 'validation-*.tar' temperature=0.4,0.6,0.8 eta=0,0.5 --by PD

    cascade sweep photo-x4 --data validation steps=1,2,3,4,6,8 temperature=0.4,0.6,0.8,1 --by PD
    --prefer speed --tolerance 0.02

    cascade sweep my-pipeline --data validation --budget 3000 --prefer speed --apply
    """
    from cascade.cli.progress import TaskProgress
    from cascade.devices import find_device
    from cascade.pipeline import CascadePipeline
    from cascade.saving.atomic import check_writable_folder
    from cascade.saving.pipelines import changeable_folder
    from cascade.sweeping.outcomes import Preference
    from cascade.sweeping.sweep import sweep as run_sweep

    if prefer not in get_args(Preference):
        raise RecipeError(f"--prefer must be quality or speed, got {prefer!r}.")
    sampling.check_without_lora(lora, apply=apply)
    folder = changeable_folder(pipeline) if apply else None
    loaded = sampling.adapted(CascadePipeline.from_pretrained(pipeline), lora)
    loaded = loaded.to(find_device(device))
    out = out or Path("sweeps") / Path(pipeline).resolve().name
    check_writable_folder(out)
    with TaskProgress() as progress:
        result = run_sweep(
            loaded,
            data,
            axes or (),
            out=out,
            progress=progress.update,
            name=" + ".join([pipeline, *(lora or [])]),
            pairs=pairs,
            range=value_range,
            nodata=nodata,
            axis=axis,
            num_images=num_images,
            budget_images=budget,
            by=by,
            prefer=prefer,
            tolerance=tolerance,
            seed=seed,
            extractor=extractor,
            extractor_path=extractor_path,
            alignment=alignment,
        )
    _write_results(result, out)
    if folder is not None:
        settings = result.outcomes[result.best].candidate.settings
        sampled = {name for name, stage in loaded.stages.items() if stage.has_settings}
        _apply(folder, {name: each for name, each in settings.items() if name in sampled})


def _write_results(result: Sweep, out: Path) -> None:
    from cascade.sweeping.report import write_report, write_strips

    typer.echo("\n".join(result.lines()))
    result.save(out / "sweep.json")
    write_strips(result, out / "strips.png")
    write_report(result, out / "report.html")


def _apply(folder: Path, settings: Mapping[str, SamplingSettings]) -> None:
    """Write settings into a pipeline, and print what its recipe needs."""
    from cascade.sweeping.applying import apply_settings, recipe_sections

    files = apply_settings(folder, settings)
    for file in files:
        note(f"wrote {file}")
    if not files:
        note(f"{folder} has these settings already.")
    note("put this into the pipeline's recipe to keep the settings when it is chained again:")
    typer.echo(recipe_sections(settings).rstrip("\n"))
