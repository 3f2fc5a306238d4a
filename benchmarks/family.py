"""Quality, coverage and speed of the systems that Cascade has, trained for the same time.

    python benchmarks/family.py --data data/emoji --cpu-minutes 30 --out out/family

A variational autoencoder, DDPM, DDIM, a reverse SDE with a corrector, latent diffusion, a pixel
cascade and a student of few steps learn the same emoji of 64 px without labels, each for the same
CPU time; a system of two networks gives each of them half. Then each draws pictures in a process
of its own, and they are compared with the training pictures; likelihoods are of held-out ones.

The result is `family.json`, a table, `family.png` with the first pictures of each system, and
`trilemma.png`. Finished work is kept in --out. After Ctrl-C or SIGTERM, the same command continues,
also with the training that was stopped. With a GPU, time is wall time. Needs the extras `evaluate`
and `benchmarks`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from side_by_side import ProcessFailedError, peak_mib, print_result, results_apart
from trainees import Clock, TimedRun, timed

from cascade.building.students import distillation_recipe
from cascade.building.training import build_trainer
from cascade.data.source import ImageSource, with_labels
from cascade.data.sources import open_source
from cascade.devices import best_device
from cascade.evaluation.evaluate import evaluate
from cascade.imaging.writing import contact_sheet
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.saving.atomic import atomic_file
from cascade.stage_kinds import load_stage

SHOWN = 12
TIMED = 16  # pictures whose drawing is timed
STUDENT_STEPS = 4
LONG_ENOUGH_TO_COMPILE_S = 600  # it takes a minute, which counts
CAPTION_PX = 190
BITS = "bits/dim"
FEWEST = 8  # pictures that an evaluation draws when its likelihood alone is of interest


@dataclass(frozen=True)
class Training:
    """A network of one or more systems.

    Attributes:
        recipe: the bundled recipe that it starts from; empty for the student of `teacher`.
        share: of the time that a system has.
        changes: to the recipe, as on the command line; `{out}` is the folder of all runs.
    """

    recipe: str
    share: float
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """What a row of the table measures.

    Attributes:
        title: its name in the table.
        stages: the trainings whose stages it chains.
        settings: sampling settings, for all stages or by stage.
        likelihood: whether its stage has bits per dimension of 64 px pictures.
    """

    title: str
    stages: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    likelihood: bool = False


SIZE = "space.size_px"
TRAININGS = {
    "pixels": Training("emoji-64", 1.0),
    "vae": Training("emoji-vae-prior", 1.0),
    "autoencoder": Training(
        "emoji-vae",
        0.5,
        (f"{SIZE}=64", "network.channels=[32,64,64]", "data.crop_px=null", "train.batch_size=32"),
    ),
    "latent": Training(
        "emoji-latent-256",
        0.5,
        (
            f"{SIZE}=16",
            "network.patch_size=2",
            "network.width=256",
            "network.head_channels=24",
            "network.head_blocks=0",
            "condition.text=null",
            "data.encoder={out}/autoencoder",
        ),
    ),
    "small": Training("emoji-64", 0.5, (f"{SIZE}=16", "network.patch_size=2")),
    "upsampler": Training(
        "emoji-64-to-256",
        0.5,
        (
            f"{SIZE}=64",
            "condition.low_resolution.size_px=16",
            "data.crop_px=null",
            "train.init_from=null",
            "train.batch_size=32",
        ),
    ),
    "teacher": Training("emoji-64", 0.5),
    "student": Training("", 0.5, ("train.batch_size=64",)),
}
SYSTEMS = {
    "vae": System("VAE", ("vae",), likelihood=True),
    "ddpm": System("DDPM, 250 steps", ("pixels",), {"sampler": "ddpm", "steps": 250}, True),
    "ddim": System("DDIM, 30 steps", ("pixels",), {"sampler": "ddim", "steps": 30}, True),
    "sde": System(
        "reverse SDE and corrector, 100 steps",
        ("pixels",),
        {"sampler": "predictor-corrector", "steps": 100},
        True,
    ),
    "latent": System(
        "latent diffusion, 30 steps",
        ("latent", "autoencoder"),
        {"latent": {"sampler": "ddim", "steps": 30}},
    ),
    "cascade": System(
        "pixel cascade 16 to 64, 30 and 8 steps",
        ("small", "upsampler"),
        {"small": {"sampler": "ddim", "steps": 30}, "upsampler": {"sampler": "ddim", "steps": 8}},
    ),
    "student": System(f"student, {STUDENT_STEPS} steps", ("student",)),
}


# ---- training -----------------------------------------------------------------------------------


def recipe_of(name: str, options: argparse.Namespace) -> StageRecipe:
    """The recipe of a training, without labels, on the pictures of `emoji-64`."""
    training, out = TRAININGS[name], options.out.resolve()
    changes = [each.format(out=out) for each in training.changes]
    only = load_stage_recipe(find_recipe("emoji-64", "stages")).data.only
    if training.recipe:
        recipe = load_stage_recipe(find_recipe(training.recipe, "stages"), changes)
    else:
        recipe, _ = distillation_recipe(str(out / "teacher"), STUDENT_STEPS, changes)
    values = timed(recipe).model_dump()
    values["data"] |= {"path": str(options.data / "train-*.tar"), "only": only}
    if 60 * options.cpu_minutes * training.share < LONG_ENOUGH_TO_COMPILE_S:
        values["train"]["compile"] = False
    return StageRecipe.model_validate(values)


def train(name: str, options: argparse.Namespace) -> None:
    """Train until the time is used up, over as many starts as it takes."""
    clock_file = options.out / name / "clock.json"
    used_s = read_json(clock_file).get("used_s", 0.0)
    budget_s = 60 * options.cpu_minutes * TRAININGS[name].share - used_s
    if budget_s <= 0:
        return
    clock = Clock()
    with clock.running():  # encoding pictures into latents counts
        trainer = build_trainer(recipe_of(name, options), options.out / name)
    run = TimedRun(trainer, clock, budget_s)
    run.train(budget_s)
    write_json({"used_s": used_s + clock.used_s()}, clock_file)
    if clock.used_s() < budget_s:
        raise SystemExit(f"{name} was stopped; the same command goes on with it.")
    print_result(
        {"name": name, "images": run.trainer.state.images_seen, "loss": run.loss()},
    )


# ---- measuring ----------------------------------------------------------------------------------


def pipeline_of(name: str, options: argparse.Namespace) -> CascadePipeline:
    """The trained chain of a system, with its sampling settings."""
    system = SYSTEMS[name]
    stages = {each: load_stage(options.out / each / "stage") for each in system.stages}
    for stage, settings in system.settings.items():
        if isinstance(settings, Mapping):
            stages[stage] = stages[stage].with_sampling(stages[stage].sampling.changed(**settings))
    common = {k: v for k, v in system.settings.items() if not isinstance(v, Mapping)}
    pipeline = CascadePipeline.from_stages(stages).to(best_device())
    return pipeline.with_sampling(**common) if common else pipeline


def pictures_of(split: str, options: argparse.Namespace) -> ImageSource:
    """The pictures of a split whose classes `emoji-64` draws; a small split need not have all."""
    only = load_stage_recipe(find_recipe("emoji-64", "stages")).data.only
    source = open_source(str(options.data / f"{split}-*.tar"))
    return with_labels(source, only, all_names=False)


def measure(name: str, options: argparse.Namespace) -> None:
    """Draw pictures, time them, and compare them with held-out ones."""
    pipeline, system = pipeline_of(name, options), SYSTEMS[name]
    pipeline.set_progress_bar_config(disable=True)
    pipeline(num_images=1, seed=0)  # compiles and loads
    clock = Clock()
    with clock.running():
        pictures = pipeline(num_images=TIMED, seed=0, output_type="pt").images
    seconds, memory = clock.used_s() / TIMED, peak_mib()
    contact_sheet(pictures[:SHOWN], columns=SHOWN).save(options.out / f"{name}.png")
    cache = options.out / "features"
    result = evaluate(
        pipeline, pictures_of("train", options), num_images=options.samples, cache_dir=cache
    )
    scores = {each.name: asdict(each) for each in result.measured[-1].scores}
    if system.likelihood:
        held_out = pictures_of("heldout", options)
        result = evaluate(
            pipeline, held_out, num_images=FEWEST, likelihood="bound", cache_dir=cache
        )
        every = [each for row in result.measured for each in row.scores]
        scores |= {each.name: asdict(each) for each in every if each.name.startswith(BITS)}
    print_result(
        {
            "name": name,
            "title": system.title,
            "seconds": seconds,
            "peak_mib": memory,
            "scores": scores,
            "megabytes": megabytes(pipeline),
        }
    )


def megabytes(pipeline: CascadePipeline) -> float:
    """The weights that drawing uses, in bfloat16: all but encoders of latents."""
    parameters = [
        parameter
        for _, stage in pipeline.stages.items()
        for name, parameter in stage.named_parameters()
        if not name.startswith(("network.model.encoder.", "network.model.quant_conv."))
    ]
    return sum(each.numel() for each in parameters) * 2 / 1e6


# ---- the results --------------------------------------------------------------------------------


def figure(row: Mapping[str, Any], name: str) -> float:
    """The value of the first score whose name begins so."""
    return next(each["value"] for key, each in row["scores"].items() if key.startswith(name))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| System | FD | KID x1000 | Recall | Bits per dimension | CPU s per picture | MiB | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        texts = [f"{figure(row, name):.3g}" for name in ("FD", "KID", "recall")]
        has_likelihood = SYSTEMS[row["name"]].likelihood
        texts.append(f"{figure(row, BITS):.3g}" if has_likelihood else "")
        lines.append(
            f"| {row['title']} | {' | '.join(texts)} | {row['seconds']:.3g} | "
            f"{row['peak_mib']:.0f} | {row['megabytes']:.1f} |"
        )
    return "\n".join(lines)


def draw_pictures(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """One line of pictures for each system, with its name."""
    sheets = [Image.open(out / f"{row['name']}.png").convert("RGB") for row in rows]
    height = sheets[0].height
    page = Image.new("RGB", (CAPTION_PX + sheets[0].width, height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for number, (row, sheet) in enumerate(zip(rows, sheets, strict=True)):
        title = row["title"].replace(", ", ",\n").replace(" and ", "\nand ")
        draw.multiline_text((6, number * height + 8), title, fill="black", font_size=13)
        page.paste(sheet, (CAPTION_PX, number * height))
    page.save(out / "family.png", optimize=True)


def draw_trilemma(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Quality over speed; the area of a circle is coverage."""
    from matplotlib.figure import Figure

    chart = Figure(figsize=(8, 5), layout="constrained")
    axes = chart.add_subplot()
    for row in rows:
        x, y = row["seconds"], figure(row, "FD")
        axes.scatter(x, y, s=60 + 3000 * figure(row, "recall"), alpha=0.5)
        axes.annotate(row["title"], (x, y), textcoords="offset points", xytext=(0, 12), ha="center")
    axes.set_xscale("log")
    axes.margins(0.25)
    axes.set_xlabel("CPU seconds per picture: faster to the left")
    axes.set_ylabel("Fréchet distance: better below")
    axes.set_title("Larger circles cover more of the held-out pictures (recall)")
    chart.savefig(path, dpi=110)


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; empty if there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(values: Mapping[str, Any], path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")


def apart(option: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train or measure in a fresh interpreter; empty if there was nothing to do."""
    arguments = [option, name, "--data", str(options.data), "--out", str(options.out)]
    arguments += ["--cpu-minutes", str(options.cpu_minutes), "--samples", str(options.samples)]
    with tempfile.TemporaryDirectory() as compiled:
        environment = {
            "OMP_WAIT_POLICY": "passive",  # or waiting would count as processor time
            "TORCHINDUCTOR_CACHE_DIR": compiled,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # compiled by children, whose time counts
        }
        results = list(results_apart(__file__, arguments, options.threads, **environment))
    return results[-1] if results else {}


def main() -> None:
    """Train what is not trained yet, measure, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data/emoji"), help="shards of 256 px emoji")
    add("--cpu-minutes", type=float, default=30.0, help="for each system")
    add("--samples", type=int, default=500, help="pictures that each system draws")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--out", type=Path, default=Path("out/family"))
    add("--train", choices=TRAININGS, help=argparse.SUPPRESS)
    add("--measure", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train, options)
    if options.measure:
        return measure(options.measure, options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # handled as Ctrl-C
    options.out.mkdir(parents=True, exist_ok=True)
    for name in TRAININGS:
        print(f"training {name}: {apart('--train', name, options) or 'done before'}", flush=True)
    rows = []
    for name in SYSTEMS:
        rows.append(apart("--measure", name, options))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    write_json({"cpu_minutes": options.cpu_minutes, "rows": rows}, options.out / "family.json")
    draw_pictures(rows, options.out)
    draw_trilemma(rows, options.out / "trilemma.png")
    print(table(rows))
    return None


if __name__ == "__main__":
    try:
        main()
    except ProcessFailedError as error:
        raise SystemExit(f"family.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("family.py: stopped; the same command continues.") from None
