"""Quality, coverage and speed of the systems that Cascade has, trained for the same time.

    python benchmarks/family.py --data data/emoji --cpu-minutes 15 --out out/family

A variational autoencoder, DDPM, DDIM, a reverse SDE with a corrector, latent diffusion, a pixel
cascade and a student of few steps learn the same emoji faces of 32 px without labels, each for the
same CPU time; a system of two networks gives each of them half. Small images, small networks and
one kind of thing let minutes show what takes larger ones days. Then each draws images in a
process of its own, and they are compared with the training images; likelihoods are of held-out
ones.

The result is `family.json`, a table, `family.png` with the first images of each system, and
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
CAPTION_PX = 210
BITS = "bits/dim"


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
        likelihood: whether it has a bound of its own on the likelihood of pictures.
    """

    title: str
    stages: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    likelihood: bool = False


SIZE_PX = 32
SIZE = "space.size_px"
TRANSFORMER = (
    "network.width=192",
    "network.depth=6",
    "network.fine_width=64",
    "network.fine_depth=2",
    "network.head_channels=24",
)
TRAININGS = {
    "pixels": Training(
        "emoji-64", 1.0, (f"{SIZE}={SIZE_PX}", "network.patch_size=4", *TRANSFORMER)
    ),
    "vae": Training(
        "emoji-vae-prior",
        1.0,
        (
            f"{SIZE}={SIZE_PX}",
            "network.channels=[32,64,128,128,128]",  # latents of 2x2
            "network.latent_channels=16",
            "autoencoding.beta=0.05",
            "train.learning_rate=5e-4",
            "train.decay_fraction=0.3",
        ),
    ),
    "autoencoder": Training(
        "emoji-vae",
        0.5,
        (
            f"{SIZE}={SIZE_PX}",
            "network.channels=[32,64,64]",
            "data.crop_px=null",
            "train.batch_size=32",
            "train.decay_fraction=0.3",
        ),
    ),
    "latent": Training(
        "emoji-latent-256",
        0.5,
        (
            f"{SIZE}={SIZE_PX // 4}",
            "network.patch_size=2",
            *TRANSFORMER,
            "network.head_blocks=0",
            "diffusion.logit_mean=-0.8",
            "train.warmup_images=6_400",
            "train.decay_fraction=0.25",
            "train.ema_decay=0.999",
            "condition.text=null",
            "data.encoder={out}/autoencoder",
        ),
    ),
    "small": Training(
        "emoji-64", 0.5, (f"{SIZE}={SIZE_PX // 2}", "network.patch_size=4", *TRANSFORMER)
    ),
    "upsampler": Training(
        "emoji-64-to-256",
        0.5,
        (
            f"{SIZE}={SIZE_PX}",
            f"condition.low_resolution.size_px={SIZE_PX // 2}",
            "network.patch_size=2",
            "network.channels=[64,64]",
            "diffusion.shift=2",
            "diffusion.residual_std=0.2",
            "data.crop_px=null",
            "train.init_from=null",
            "train.batch_size=32",
        ),
    ),
    "teacher": Training(
        "emoji-64", 0.5, (f"{SIZE}={SIZE_PX}", "network.patch_size=4", *TRANSFORMER)
    ),
    "student": Training("", 0.5, ("train.batch_size=64", "student.grid=[30,60]")),
}
SYSTEMS = {
    "vae": System("VAE", ("vae",), likelihood=True),
    "ddpm": System("DDPM, 250 steps", ("pixels",), {"sampler": "ddpm", "steps": 250}, True),
    "ddim": System("DDIM, 30 steps", ("pixels",), {"sampler": "ddim", "steps": 30}),
    "sde": System(
        "reverse SDE and corrector, 100 steps",
        ("pixels",),
        {"sampler": "predictor-corrector", "predictor": "euler-maruyama", "steps": 100},
    ),
    "latent": System(
        "latent diffusion, 30 steps",
        ("latent", "autoencoder"),
        {"latent": {"sampler": "ddim", "steps": 30}},
    ),
    "cascade": System(
        f"pixel cascade {SIZE_PX // 2} to {SIZE_PX}, 30 and 8 steps",
        ("small", "upsampler"),
        {"small": {"sampler": "ddim", "steps": 30}, "upsampler": {"sampler": "ddim", "steps": 8}},
    ),
    "student": System(f"student, {STUDENT_STEPS} steps", ("student",)),
}


def faces() -> dict[str, list[str]]:
    """The classes of emoji that are faces, by their label field."""
    only = load_stage_recipe(find_recipe("emoji-64", "stages")).data.only
    return {"class": [name for name in only["class"] if name.startswith("face-")]}


# ---- training -----------------------------------------------------------------------------------


def recipe_of(name: str, options: argparse.Namespace) -> StageRecipe:
    """The recipe of a training, without labels, on pictures of faces."""
    training, out = TRAININGS[name], options.out.resolve()
    changes = [each.format(out=out) for each in training.changes]
    if training.recipe:
        recipe = load_stage_recipe(find_recipe(training.recipe, "stages"), changes)
    else:
        recipe, _ = distillation_recipe(str(out / "teacher"), STUDENT_STEPS, changes)
    values = timed(recipe).model_dump()
    values["data"] |= {"path": str(options.data / "train-*.tar"), "only": faces()}
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
    """The faces of a split; a small split need not have all classes."""
    source = open_source(str(options.data / f"{split}-*.tar"))
    return with_labels(source, faces(), all_names=False)


def measure(name: str, options: argparse.Namespace) -> None:
    """Draw pictures, time them, and compare them with those that were trained on."""
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
        count = min(len(held_out), options.samples)
        result = evaluate(pipeline, held_out, num_images=count, likelihood="bound", cache_dir=cache)
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


def score(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The first score whose name begins so."""
    return next(each for key, each in row["scores"].items() if key.startswith(name))


def text(score: Mapping[str, Any]) -> str:
    """A value, with its interval if it has one."""
    value = f"{score['value']:.3g}"
    return value if score["low"] is None else f"{value} [{score['low']:.3g}, {score['high']:.3g}]"


def basis(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many pictures the figures were measured on."""
    quality = score(rows[0], "FD")
    bits = next(score(each, BITS) for each in rows if SYSTEMS[each["name"]].likelihood)
    return (
        f"FD, KID and recall compare {quality['n']} generated images with the "
        f"{quality['n_reference']} that were trained on; bits per dimension are of "
        f"{bits['n']} held-out ones; in brackets, intervals of 95 %."
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| System | FD | KID x1000 | Recall | Bits per dimension | CPU s per image | MiB | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        texts = [text(score(row, name)) for name in ("FD", "KID", "recall")]
        texts.append(text(score(row, BITS)) if SYSTEMS[row["name"]].likelihood else "")
        lines.append(
            f"| {row['title']} | {' | '.join(texts)} | {row['seconds']:.3g} | "
            f"{row['peak_mib']:.0f} | {row['megabytes']:.1f} |"
        )
    return "\n".join(lines)


def draw_pictures(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """One line of pictures for each system, twice as large, with its name."""
    sheets = [Image.open(out / f"{row['name']}.png").convert("RGB") for row in rows]
    sheets = [sheet.resize((2 * sheet.width, 2 * sheet.height)) for sheet in sheets]
    height = sheets[0].height
    page = Image.new("RGB", (CAPTION_PX + sheets[0].width, height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for number, (row, sheet) in enumerate(zip(rows, sheets, strict=True)):
        title = row["title"].replace(", ", ",\n", 1)
        draw.multiline_text((6, number * height + 14), title, fill="black", font_size=14)
        page.paste(sheet, (CAPTION_PX, number * height))
    page.save(out / "family.png", optimize=True)


def draw_trilemma(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Quality over speed; the area of a circle is coverage."""
    from matplotlib.artist import setp
    from matplotlib.figure import Figure

    chart = Figure(figsize=(8, 5), layout="constrained")
    axes = chart.add_subplot()
    for row in rows:
        area = 60 + 3000 * score(row, "recall")["value"]
        point = [row["seconds"]], [score(row, "FD")["value"]]
        axes.scatter(*point, s=area, alpha=0.5, label=row["title"])
    for circle in filter(None, axes.legend(loc="upper right").legend_handles):
        setp(circle, sizes=[80])
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.set_xlabel("CPU seconds per image: faster to the left")
    axes.set_ylabel("Fréchet distance: better below")
    axes.set_title("Larger circles cover more of the training images (recall)")
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
    add("--samples", type=int, default=500, help="images that each system generates")
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
    print(f"{table(rows)}\n\n{basis(rows)}")
    return None


if __name__ == "__main__":
    try:
        main()
    except ProcessFailedError as error:
        raise SystemExit(f"family.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("family.py: stopped; the same command continues.") from None
