"""Compare networks for the 64 px emoji stage at equal CPU time.

    python benchmarks/backbones.py --data "data/emoji/train-*.tar" --cpu-s 600

Trains each network for the same CPU seconds of the process, compile time aside, samples with its
averaged weights, and prints images seen, the loss, and FD-EffLite2 against the training images
with the number of samples, and the same for as many real images, the floor. A sheet of samples
of each is written to --out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).parent))
from emoji_card import read_all

from cascade.building.training import build_trainer
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.data.sources import open_source
from cascade.diffusion.noise import derive_seed
from cascade.evaluation.features import extract_features
from cascade.evaluation.set_distances import frechet_distance
from cascade.imaging.writing import contact_sheet, save_png
from cascade.recipe.finding import find_recipe
from cascade.recipe.network_sections import TransformerSection, UNetSection
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.stage import Run, Stage
from cascade.vision.efficientnet import load_efficientnet

INPUT_PX = 128  # of the extractor


def networks() -> dict[str, dict]:
    """What each candidate changes in the recipe of `emoji-64`."""
    unet = UNetSection(
        kind="unet", patch_size=2, channels=[64, 128, 192], blocks=2, attention=[False, False, True]
    )
    adamw = {"optimiser": "adamw", "learning_rate": 6e-4, "betas": (0.9, 0.99)}
    v = {"prediction": "v", "weighting": "uniform", "timesteps": "uniform"}
    return {
        "hourglass": {},
        "patches of 8": {"network": TransformerSection(kind="transformer", depth=9, fine_depth=0)},
        "hourglass, AdamW": {"train": adamw},
        "U-Net, v, AdamW": {"network": unet, "train": adamw, "diffusion": v},
    }


def main() -> None:
    """Train, sample and measure every candidate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data/emoji/train-*.tar")
    parser.add_argument("--cpu-s", type=float, default=600, help="CPU seconds for each network")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--only", nargs="*", help="names of the networks to try; default: all")
    parser.add_argument("--out", type=Path, default=Path("out/backbones"))
    arguments = parser.parse_args()

    extractor = load_efficientnet("lite2")
    real = read_all(open_source(arguments.data), 64)
    features = extract_features(extractor, real, resized_px=INPUT_PX)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    floor = frechet_distance(features[order[: arguments.samples]], features)
    print(f"real images, n {arguments.samples}: FD-EffLite2 {floor:.0f}", flush=True)
    for name, changes in networks().items():
        if arguments.only and name not in arguments.only:
            continue
        recipe = change(load_stage_recipe(find_recipe("emoji-64", "stages")), changes, arguments)
        stage, seen, loss = train(recipe, arguments.cpu_s)
        images = sample(stage, arguments.samples)
        save_png(contact_sheet(images[:64]), arguments.out / f"{name}.png")
        own = extract_features(extractor, images, resized_px=INPUT_PX)
        distance = frechet_distance(own, features)
        millions = sum(p.numel() for p in stage.parameters()) / 1e6
        print(
            f"{name}: {millions:.2f} M parameters, {seen} images in {arguments.cpu_s:.0f} CPU s, "
            f"last loss {loss:.4f}, FD-EffLite2 {distance:.0f} (n {len(images)})",
            flush=True,
        )


def change(recipe: StageRecipe, changes: dict, arguments: argparse.Namespace) -> StageRecipe:
    """The recipe with a candidate's changes, for a run that is ended by its CPU time."""
    values = recipe.model_dump()
    for section, new in changes.items():
        values[section] = values[section] | new if isinstance(new, dict) else new.model_dump()
    values["data"]["path"] = arguments.data
    values["train"] |= {
        "decay_fraction": 0.0,
        "compile": False,
        "sample_every_images": 0,
        "checkpoint_every_images": values["train"]["images"],
        "ema_decay": 0.99,
    }
    return StageRecipe.model_validate(values)


def train(recipe: StageRecipe, cpu_s: float) -> tuple[Stage, int, float]:
    """Train until the CPU time is used; returns the averaged stage, images seen and last loss."""
    started: list[float] = []
    losses: list[float] = []

    def watch(values: dict[str, float]) -> None:
        losses.append(values["loss"])
        if not started:
            started.append(time.process_time())
        elif time.process_time() - started[0] > cpu_s:
            trainer.stop_requested = True

    with TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, Path(folder), report=watch)
        stage = trainer.run()
    return stage, trainer.state.images_seen, losses[-1]


def sample(stage: Stage, count: int) -> torch.Tensor:
    """Samples (count, 3, 64, 64) with labels drawn evenly, the same for every network."""
    condition = stage.contract.condition(Labels.name)
    assert isinstance(condition, Labels)
    sizes = condition.vocabulary.sizes
    labels = torch.tensor(
        [[derive_seed(seed, field) % n for field, n in enumerate(sizes)] for seed in range(count)]
    )
    run = Run(precision="auto")
    parts = torch.arange(count).split(64)
    return torch.cat(
        [stage.run(part.tolist(), Inputs({"labels": labels[part]}), run=run) for part in parts]
    )


if __name__ == "__main__":
    main()
