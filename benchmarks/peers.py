"""Quality for time: ours, imagen-pytorch and denoising-diffusion-pytorch trained from scratch.

    python benchmarks/peers.py --task all --data data --cpu-minutes 30 --at 5,10,20,30

Each method trains for the same CPU time on the same images, one after another and each in a
fresh interpreter; in between it draws images, for which the clock stands still, and their
Fréchet distance and KID are printed. With a GPU, time is wall time. Two tasks:

    emoji     a base of 64 px, without classes, which not all have; n samples are compared with
              all training images
    photos    an upsampler 64 -> 256 px; held-out photographs are downscaled and upscaled again,
              and their quarters of 128 px compared with those of the true images;
              denoising-diffusion-pytorch has no upsampler and is left out

Finished methods are kept in --out, and the same command continues with the next one; a method that
was interrupted starts again. With --peer-steps, now or later, the peers draw once more at the end,
with the steps that they recommend. Results: `results.json`, a table, and a sheet of each method's
images in `TASK/METHOD.png`. See `Reading peers.py` in benchmarks/README.md for the settings.

Shapes: B batch, N samples, S side in pixels, F features.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import (
    ProcessFailedError,
    count_gflop,
    make_pictures,
    peak_mib,
    print_result,
    results_apart,
)
from torch import Tensor
from trainees import Clock, DenoisingDiffusionPytorch, ImagenPytorch, Ours, Peer, Trainee

from cascade.contract import Contract
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.devices import best_device
from cascade.errors import CascadeError
from cascade.evaluation.extractors import EXTRACTORS, find_extractor
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.set_distances import frechet_distance, frechet_estimate, kernel_estimate
from cascade.imaging.writing import contact_sheet, from_uint8, save_png
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.resizing import quantise, resize
from cascade.saving.atomic import atomic_file
from cascade.space import Space

OURS, IMAGEN, DENOISING = "ours", "imagen-pytorch", "denoising-diffusion-pytorch"
RECIPES = {"emoji": "emoji-64", "photos": "photo-x4"}
METHODS = {"emoji": (OURS, IMAGEN, DENOISING), "photos": (OURS, IMAGEN)}
AIM = 0.6
LONG_ENOUGH_TO_COMPILE_S = 600  # it takes a minute, which counts
SHOWN = 64
FEATURE_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every method of a task is given; results of other work are made anew.

    Attributes:
        at_s: times at which pictures are drawn, rising; the last one ends the training.
        samples: N.
        steps: calls of the network per picture.
        batch_size: of the peers; ours has its recipe's.
        quick: whether ours has small batches, as in a smoke test.
    """

    task: str
    data: str
    heldout: str
    at_s: tuple[float, ...]
    samples: int
    steps: int
    batch_size: int
    threads: int
    extractor: str
    quick: bool


# ---- pictures -----------------------------------------------------------------------------------


def our_recipe(work: Work) -> StageRecipe:
    """The bundled recipe of the task, on the data of the work."""
    values = load_stage_recipe(find_recipe(RECIPES[work.task], "stages")).model_dump()
    values["data"]["path"] = work.data
    if work.at_s[-1] < LONG_ENOUGH_TO_COMPILE_S:
        values["train"]["compile"] = False
    if work.quick:
        values["data"]["only"] = {}
        values["train"]["batch_size"] = 16
    return StageRecipe.model_validate(values)


def space_of(recipe: StageRecipe) -> Space:
    """What the stage of a recipe gives."""
    return Space(**recipe.space.model_dump())


def low_res_px(recipe: StageRecipe) -> int:
    """The side of the small image that an upsampler takes; 0 for a base stage."""
    options = recipe.condition.low_resolution
    return 0 if options is None else options.size_px


def training_images(recipe: StageRecipe) -> TrainingImages:
    """The pictures of a recipe, whole, for the peers and for measuring."""
    source = open_source(recipe.data.path, only=recipe.data.only)
    contract = Contract(space_of(recipe))
    return TrainingImages(source, contract, flip=recipe.data.flip, seed=recipe.train.seed)


def held_out(work: Work, space: Space) -> Tensor:
    """Held-out pictures at even distances, a quarter as many as samples: (B, 3, S, S)."""
    images = TrainingImages(open_source(work.heldout), Contract(space))
    count = min(max(1, work.samples // 4), len(images.source))
    indices = torch.linspace(0, len(images.source) - 1, count).long().tolist()
    return from_uint8(torch.stack([images.sized(index).image for index in indices]))


def made_small(images: Tensor, size_px: int) -> Tensor:
    """As the upsampler's recipe does it: antialiased bicubic, rounded to 8 bits."""
    return quantise(resize(images, (size_px, size_px), "bicubic"))


def quarters(images: Tensor) -> Tensor:
    """Cut (B, C, S, S) into its four quarters, picture by picture: (4 B, C, S / 2, S / 2)."""
    half = images.shape[-1] // 2
    rows = images.unfold(2, half, half).unfold(3, half, half)  # (B, C, 2, 2, S / 2, S / 2)
    return rows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


# ---- measuring ----------------------------------------------------------------------------------


@torch.no_grad()
def features_of(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    """(N, F) float64 of images (N, 3, S, S) in [-1, 1]."""
    parts = images.split(FEATURE_BATCH)
    return torch.cat([extractor.features(part).double() for part in parts])


def prepare_reference(work: Work, folder: Path) -> dict[str, Any]:
    """Keep the features of the real pictures in `reference.npy`, and say what they are.

    Returns:
        `against`, in words; `beside`, the name of what needs no training, and its distances.
    """
    file = folder / "reference.json"
    known = read_json(file)
    if known and known["work"] == as_json(work) and (folder / "reference.npy").exists():
        return known
    extractor, recipe = find_extractor(work.extractor), our_recipe(work)
    if work.task == "photos":
        truth = held_out(work, space_of(recipe))
        small = made_small(truth, low_res_px(recipe))
        features = features_of(extractor, quarters(truth))
        simple = resize(small, (truth.shape[-2], truth.shape[-1]), "bicubic")
        simple = features_of(extractor, quarters(simple))
        words, beside = "quarters of 128 px of the true images", "bicubic"
    else:
        images = training_images(recipe)
        pictures = (images.sized(index).image for index in range(len(images.source)))
        features = features_of(extractor, from_uint8(torch.stack(list(pictures))))
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
        simple, words = features[order[: work.samples]], "training images of 64 px"
        beside = "real images"
    with atomic_file(folder / "reference.npy") as temporary, open(temporary, "wb") as opened:
        np.save(opened, features.numpy())
    about = {
        "work": as_json(work),
        "against": f"{len(features)} {words}, {extractor.name}, {extractor.resizing}",
        "name": extractor.name,
        "beside": beside,
        **distances(simple, features),
    }
    write_json(about, file)
    return about


def distances(features: Tensor, truth: Tensor, *, interval: bool = False) -> dict[str, float]:
    """Fréchet distance and KID x1000 of features (N, F), KID with its interval of 95 %.

    Args:
        features: of samples.
        truth: (M, F).
        interval: whether the Fréchet distance gets one too, which takes a while.
    """
    kid = kernel_estimate(features, truth)
    found = {"n": len(features), "kid": kid.value, "kid_low": kid.low, "kid_high": kid.high}
    if not interval:
        return found | {"fd": frechet_distance(features, truth)}
    fd = frechet_estimate(features, truth)
    return found | {"fd": fd.value, "fd_low": fd.low, "fd_high": fd.high}


# ---- one method, in a process of its own --------------------------------------------------------


def make_trainee(name: str, work: Work, out: Path) -> Trainee:
    """A method with new weights."""
    clock, recipe = Clock(), our_recipe(work)
    if name == OURS:
        return Ours(recipe, clock, budget_s=work.at_s[-1], steps=work.steps, out=out)
    images = training_images(recipe)
    same = {"batch_size": work.batch_size, "steps": work.steps}
    if name == IMAGEN:
        return ImagenPytorch(images, clock, low_res_px=low_res_px(recipe), **same)
    return DenoisingDiffusionPytorch(images, clock, out=out, **same)


def run_method(name: str, work: Work, folder: Path) -> Iterator[dict[str, Any]]:
    """Train a method and measure it at every time; at the end with the last weights too."""
    torch.set_num_threads(work.threads)
    truth, low_res = task_pictures(work)
    real = torch.from_numpy(np.load(folder / "reference.npy"))
    extractor = find_extractor(work.extractor)
    with tempfile.TemporaryDirectory() as out:
        trainee = make_trainee(name, work, Path(out))
        fixed: dict[str, Any] = {}
        for at_s in work.at_s:
            trainee.train(at_s)
            fixed = fixed or {"peak_mib": peak_memory_mib()} | size_of(trainee, work, low_res)
            for averaged in (True, False) if at_s == work.at_s[-1] else (True,):
                count = work.samples if low_res is None else len(low_res)
                drawn = trainee.draw(count, low_res, averaged=averaged)
                sheet = name if averaged else f"{name}-last"
                save_sheet(drawn, truth, low_res, folder / f"{sheet}.png")
                features = features_of(extractor, drawn if truth is None else quarters(drawn))
                yield {
                    "at_s": at_s,
                    "used_s": trainee.clock.used_s(),
                    "wall_s": trainee.clock.used_wall_s(),
                    "images": trainee.images_seen(),
                    "batch_size": trainee.batch_size,
                    "loss": trainee.loss(),
                    "weights": "averaged" if averaged else "last",
                    "steps": work.steps,
                    **distances(features, real, interval=at_s == work.at_s[-1]),
                    **fixed,
                }
        if isinstance(trainee, Peer):
            trainee.save(folder / f"{name}.safetensors")


def draw_again(name: str, work: Work, folder: Path, steps: int) -> dict[str, Any]:
    """What a peer that is done draws with other steps, from the better ones of its weights."""
    torch.set_num_threads(work.threads)
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["results"]
    row = best_at_end(rows)
    truth, low_res = task_pictures(work)
    real = torch.from_numpy(np.load(folder / "reference.npy"))
    with tempfile.TemporaryDirectory() as out:
        trainee = make_trainee(name, replace(work, steps=steps), Path(out))
        assert isinstance(trainee, Peer)
        trainee.load(folder / f"{name}.safetensors")
        count = work.samples if low_res is None else len(low_res)
        drawn = trainee.draw(count, low_res, averaged=row["weights"] == "averaged")
    save_sheet(drawn, truth, low_res, folder / f"{name}-{steps}.png")
    features = features_of(
        find_extractor(work.extractor), drawn if truth is None else quarters(drawn)
    )
    return row | {"steps": steps} | distances(features, real, interval=True)


def best_at_end(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the lowest Fréchet distance of those of the last time."""
    last_s = max(row["at_s"] for row in rows)
    return min((row for row in rows if row["at_s"] == last_s), key=lambda row: row["fd"])


def task_pictures(work: Work) -> tuple[Tensor | None, Tensor | None]:
    """Of an upsampler the true pictures and the small ones that it gets."""
    if work.task != "photos":
        return None, None
    recipe = our_recipe(work)
    truth = held_out(work, space_of(recipe))
    return truth, made_small(truth, low_res_px(recipe))


def size_of(trainee: Trainee, work: Work, low_res: Tensor | None) -> dict[str, float]:
    """Parameters of the network, and its work for one picture of full size."""
    one = None if low_res is None else low_res[:1]
    gflop = count_gflop(lambda: trainee.draw(1, one, averaged=True, precision="fp32")) / work.steps
    return {
        "parameters_m": sum(p.numel() for p in trainee.network.parameters()) / 1e6,
        "gflop": gflop,
    }


def peak_memory_mib() -> float:
    """The most memory so far: of the GPU, or of the process."""
    on_gpu = best_device().type == "cuda"
    return torch.cuda.max_memory_allocated() / 2**20 if on_gpu else peak_mib()


def save_sheet(drawn: Tensor, truth: Tensor | None, low_res: Tensor | None, path: Path) -> None:
    """Some of the pictures; of an upsampler rows of what it was given, what it made, the truth."""
    if truth is None or low_res is None:
        save_png(contact_sheet(drawn[:SHOWN]), path)
        return
    given = low_res.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    rows = torch.stack([given, drawn, truth], dim=1)[: SHOWN // 8]
    save_png(contact_sheet(rows.flatten(0, 1), columns=6), path)


# ---- comparing ----------------------------------------------------------------------------------


def compare(
    work: Work, folder: Path, only: Sequence[str] | None, more_steps: int | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Run the methods of a task that are not done yet, and tell what each one finds, as it does.

    Args:
        work: the task.
        folder: of its results.
        only: the methods to run; None for all.
        more_steps: with which peers draw once more in the end; None for not at all.
    """
    about = prepare_reference(work, folder)
    print(f"{work.task}: against {about['against']}")
    print(f"{work.task}: {about['beside']}: {distance_text(about, about['name'])}", flush=True)
    results = {}
    for name in chosen(work.task, only):
        try:
            rows = done_or_run(name, name, ["--measure", name], work, folder, about)
            if more_steps and name != OURS:
                arguments = ["--measure", name, "--peer-steps", str(more_steps)]
                file = f"{name}-{more_steps}"
                rows += done_or_run(file, name, arguments, work, folder, about)
            results[name] = rows
        except ProcessFailedError as error:
            print(f"{work.task}, {name}: left out ({error})", flush=True)
    return results


def chosen(task: str, only: Sequence[str] | None) -> list[str]:
    """Names of the methods that are to run."""
    return [name for name in METHODS[task] if not only or name in only]


def done_or_run(
    file: str, name: str, arguments: list[str], work: Work, folder: Path, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a result that is kept, or of a fresh interpreter with nothing compiled before."""
    path = folder / f"{file}.json"
    done = read_json(path)
    if done and done["work"] == as_json(work):
        print(f"{work.task}, {file}: done before")
        return done["results"]
    if name != OURS and find_spec(name.replace("-", "_")) is None:
        raise ProcessFailedError('not installed: pip install -e ".[peers]"')
    arguments = [*arguments, "--work", json.dumps(asdict(work)), "--out", str(folder)]
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        environment = {
            "OMP_WAIT_POLICY": "passive",  # or waiting would count as processor time
            "TORCHINDUCTOR_CACHE_DIR": compiled,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # compiled by children, whose time counts
        }
        for values in results_apart(__file__, arguments, work.threads, **environment):
            found.append(values)
            print(f"{work.task}, {name}, {progress_text(values, about['name'])}", flush=True)
    write_json({"work": as_json(work), "results": found}, path)
    return found


def progress_text(values: dict[str, Any], extractor: str) -> str:
    """What a method has reached, on a line."""
    return (
        f"{values['at_s'] / 60:.3g} min, {values['weights']} weights, {values['steps']} steps: "
        f"{values['images']} images, "
        f"loss {values['loss']:.4f}, {distance_text(values, extractor)}"
    )


def distance_text(values: dict[str, Any], extractor: str) -> str:
    """Both distances with what they were measured on."""
    interval = f" [{values['fd_low']:.1f}, {values['fd_high']:.1f}]" if "fd_low" in values else ""
    return (
        f"FD-{extractor} {values['fd']:.1f}{interval}, KID x1000 {values['kid']:.2f} "
        f"[{values['kid_low']:.2f}, {values['kid_high']:.2f}] (n {values['n']})"
    )


def table(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines, a row for every method and time."""
    lines = [
        f"{'method':<28} {'min':>5} {'weights':>8} {'steps':>5} {'images':>8} {'img/s':>7} "
        f"{'img/cpu-s':>9} {'FD':>8} {'KID x1000':>9} {'n':>4} {'peak MiB':>8} {'batch':>5} "
        f"{'M par.':>6} {'GFLOP':>6}"
    ]
    for name, rows in results.items():
        lines += [
            f"{name:<28} {row['at_s'] / 60:>5.3g} {row['weights']:>8} {row['steps']:>5} "
            f"{row['images']:>8} "
            f"{row['images'] / row['wall_s']:>7.2f} {row['images'] / row['used_s']:>9.2f} "
            f"{row['fd']:>8.1f} {row['kid']:>9.2f} {row['n']:>4} {row['peak_mib']:>8.0f} "
            f"{row['batch_size']:>5} {row['parameters_m']:>6.2f} {row['gflop']:>6.2f}"
            for row in rows
        ]
    return lines


def ratio_text(task: str, results: dict[str, list[dict[str, Any]]]) -> str:
    """Our Fréchet distance through the best peer's, each with the best of its weights and steps."""
    last = {name: best_at_end(rows)["fd"] for name, rows in results.items()}
    ours = last.pop(OURS, None)
    if ours is None or not last:
        return f"{task}: no ratio, since ours or all peers are missing"
    best = min(last, key=lambda name: last[name])
    return (
        f"{task}: our FD at the end is {ours / last[best]:.2f} of that of the best peer, {best} "
        f"(aim: at most {AIM})"
    )


# ---- files --------------------------------------------------------------------------------------


def as_json(work: Work) -> dict[str, Any]:
    """The work as it comes back from a file."""
    return json.loads(json.dumps(asdict(work)))


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds, or None if there is none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_json(values: Any, path: Path) -> None:
    """Write a file under its final name only when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2), encoding="utf-8")


# ---- command ------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", choices=[*RECIPES, "all"], default="all")
    add("--data", type=Path, default=Path("data"), help="folder with the sets emoji and photos")
    add("--cpu-minutes", type=float, default=30, help="training time of each method")
    add("--at", default="5,10,20,30", help="minutes at which images are generated")
    add("--samples", type=int, default=256, help="images, or quarters, that are compared")
    add("--steps", type=int, default=50, help="calls of the network per image, for all")
    add("--peer-steps", type=int, help="with which the peers draw once more in the end")
    add("--batch-size", type=int, default=16, help="of the peers, at least 16")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--extractor", choices=EXTRACTORS, default="lite2")
    add("--only", action="append", choices=METHODS["emoji"], help="may be given again")
    add("--out", type=Path, default=Path("out/peers"))
    add("--quick", action="store_true", help="a smoke test on synthetic images")
    add("--measure", choices=METHODS["emoji"], help=argparse.SUPPRESS)
    add("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


def times_s(cpu_minutes: float, at: str) -> tuple[float, ...]:
    """The times before the end, and the end.

    Raises:
        ValueError: if one is no number above 0.
    """
    try:
        minutes = {float(each) for each in at.split(",")} | {cpu_minutes}
    except ValueError:
        raise ValueError(f"--at takes minutes, such as 5,10,20; got {at!r}") from None
    if min(minutes) <= 0:
        raise ValueError(f"times must be above 0, got {at!r} and {cpu_minutes:g} minutes")
    return tuple(60 * each for each in sorted(minutes) if each <= cpu_minutes)


def make_work(given: argparse.Namespace, task: str) -> Work:
    """What the command line asks for."""
    work = Work(
        task=task,
        data=str(given.data / task / "train-*.tar"),
        heldout=str(given.data / task / "heldout-*.tar"),
        at_s=times_s(given.cpu_minutes, given.at),
        samples=given.samples,
        steps=given.steps,
        batch_size=given.batch_size,
        threads=given.threads,
        extractor=given.extractor,
        quick=given.quick,
    )
    if not given.quick:
        return work
    pictures = given.out / "pictures" / task
    make_pictures(pictures, 64, 64 if task == "emoji" else 128)
    same = str(pictures)
    return replace(work, data=same, heldout=same, at_s=(2.0, 4.0), samples=8, steps=3)


def main() -> None:
    """Run the tasks, print a table and the ratio of each."""
    given = parse_arguments()
    if given.measure:
        work = json.loads(given.work)
        work = Work(**work | {"at_s": tuple(work["at_s"])})
        if given.peer_steps:
            print_result(draw_again(given.measure, work, given.out, given.peer_steps))
            return
        for values in run_method(given.measure, work, given.out):
            print_result(values)
        return
    clock = "CPU time" if best_device().type == "cpu" else "wall time, since there is a GPU"
    print(f"{given.threads} threads, torch {torch.__version__}; minutes are of {clock}", flush=True)
    results, ratios = {}, []
    try:
        for task in RECIPES if given.task == "all" else [given.task]:
            work, folder = make_work(given, task), given.out / task
            results[task] = compare(work, folder, given.only, given.peer_steps)
            write_json(results, given.out / "results.json")
            print("\n".join(["", task, *table(results[task]), ""]), flush=True)
            ratios.append(ratio_text(task, results[task]))
    except (CascadeError, ValueError) as error:
        sys.exit(f"peers.py: error: {error}")
    print("\n".join(ratios))
    if any(list(found) != chosen(task, given.only) for task, found in results.items()):
        sys.exit("peers.py: error: methods were left out, for the reasons above.")


if __name__ == "__main__":
    main()
