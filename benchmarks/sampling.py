"""Sampling speed: our loop beside diffusers' own, and what `generate` and `upscale` cost in all.

Both loops call the very same network the same number of times, with the same noise, so that the
ratio is the price of the loop and nothing else; the largest difference of the images is printed
beside it. The loops take turns (A B A B), so that a busy machine slows both.

    guidance 1: `CascadePipeline` beside `diffusers.DDIMPipeline`
    guidance 2: `CascadePipeline`, one forward of twice the batch, beside two loops over
        `diffusers.DDIMScheduler`: with two forwards per step, and with one as ours

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import ConfigMixin, DDIMPipeline, DDIMScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from PIL import Image
from torch import Tensor, nn

from cascade import CascadePipeline
from cascade.conditioning.labels import Labels
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError
from cascade.recipe.finding import find_recipe
from cascade.saving.pipelines import has_weights
from cascade.space import Space

EPILOG = """examples:
  python benchmarks/sampling.py
  python benchmarks/sampling.py --quick
  python benchmarks/sampling.py --upscale-px 2048
  python benchmarks/sampling.py --images 8 --rounds 7 --precision bf16 --skip-generate
"""
CLASS = "cat-face"
LABELS = Labels(fields={"class": [CLASS, "dog-face"]})


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much work one turn is."""

    size_px: int
    images: int
    steps: int
    rounds: int


FULL = Size(size_px=64, images=8, steps=50, rounds=5)
QUICK = Size(size_px=32, images=4, steps=10, rounds=3)


# ---- the two loops ------------------------------------------------------------------------------


def make_stage(size_px: int) -> DiffusionStage:
    """A class-conditional base stage with random weights; the last layer's too, or it would say 0.

    The weights are small, so that the images stay near the range that a trained stage has.
    """
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=size_px), (LABELS,)),
        NoiseProcess(NoiseSchedule("cosine"), prediction="v"),
        network_options={"patch_size": 2, "channels": (64, 128, 192), "blocks": 1},
    )
    nn.init.normal_(stage.network.backbone.conv_out.weight, std=0.02)
    return stage.eval()


class AsUNet2D(ModelMixin, ConfigMixin):
    """A stage's network under the call of `UNet2DModel`, always with the same signals."""

    @register_to_config
    def __init__(self, *, sample_size: int, in_channels: int) -> None:
        super().__init__()
        self.network: nn.Module | None = None
        self.signals: Signals | None = None

    @classmethod
    def of(cls, stage: DiffusionStage, signals: Signals) -> AsUNet2D:
        adapter = cls(sample_size=stage.space.longer_px, in_channels=stage.space.channels)
        adapter.network = stage.network
        adapter.signals = signals
        return adapter

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        assert self.network is not None
        t = timestep.expand(sample.shape[0]).to(sample.device)
        return UNet2DOutput(sample=self.network(sample, t, self.signals))


def make_scheduler(stage: DiffusionStage) -> DDIMScheduler:
    """diffusers' scheduler where it is right: trailing spacing, alpha_bar 1 at the end."""
    return DDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=True,
        **stage.process.schedule.diffusers_config(),
    )


def signals_of(count: int) -> Signals:
    """What the network is told about images of the one class."""
    indices = LABELS.vocabulary.batch([{"class": CLASS}] * count)
    return Signals(vectors={LABELS.name: indices})


def our_images(
    stage: DiffusionStage, size: Size, *, guidance: float, precision: Precision
) -> Tensor:
    """`CascadePipeline` of one stage: (B, H, W, C) in [0, 1]."""
    pipeline = CascadePipeline.from_stages({"base": stage})
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        num_images=size.images,
        labels=CLASS,
        seed=0,
        sampler="ddim",
        steps=size.steps,
        guidance=guidance,
        batch_size=size.images,
        precision=precision,
        output_type="np",
        return_dict=False,
    )[0]
    return torch.from_numpy(images)


def pipeline_images(stage: DiffusionStage, size: Size, *, precision: Precision) -> Tensor:
    """diffusers' `DDIMPipeline`: (B, H, W, C) in [0, 1]."""
    signals = signals_of(size.images).map(lambda each: each.to(stage.device))
    unet = AsUNet2D.of(stage, signals)
    pipeline = DDIMPipeline(unet=unet, scheduler=make_scheduler(stage))
    pipeline.set_progress_bar_config(disable=True)
    with autocast(stage.device, precision):
        images = pipeline(
            batch_size=size.images,
            generator=SeededNoise(range(size.images), "stage base").generators,
            num_inference_steps=size.steps,
            use_clipped_model_output=True,
            output_type="np",
            return_dict=False,
        )[0]
    return torch.from_numpy(images)


@torch.no_grad()
def guided_images(
    stage: DiffusionStage, size: Size, *, guidance: float, batched: bool, precision: Precision
) -> Tensor:
    """The loop of diffusers' documentation over its `DDIMScheduler`: (B, H, W, C) in [0, 1]."""
    scheduler = make_scheduler(stage)
    scheduler.set_timesteps(size.steps)
    signals = signals_of(size.images)
    without = signals
    for condition in stage.conditions:
        without = without.merged(condition.absent(signals.only(condition.name)))
    noise = SeededNoise(range(size.images), "stage base")
    x_t = noise.normal(stage.space.channels, size.size_px, size.size_px)  # (B, C, H, W)
    for t in scheduler.timesteps:
        times = t.expand(size.images)
        with autocast(stage.device, precision):
            if batched:
                both = stage.network(
                    torch.cat([x_t, x_t]),
                    torch.cat([times, times]),
                    signals.concatenate(without),
                )
                conditional, unconditional = both.chunk(2)
            else:
                conditional = stage.network(x_t, times, signals)
                unconditional = stage.network(x_t, times, without)
        guided = unconditional.float() + guidance * (conditional - unconditional).float()
        x_t = scheduler.step(guided, t, x_t, use_clipped_model_output=True).prev_sample
    return (x_t / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


# ---- comparing ----------------------------------------------------------------------------------


def compare(
    name: str, size: Size, ours: Callable[[], Tensor], theirs: Callable[[], Tensor]
) -> None:
    """Print the images/s of both, and the ratio, over turns A B A B after one to warm up."""
    difference = float((ours() - theirs()).abs().max())
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(size.rounds):
        for side, make in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            make()
            rates[side].append(size.images / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    print(name)
    print(f"  ours       {_spread(rates['ours'])} images/s")
    print(f"  diffusers  {_spread(rates['theirs'])} images/s")
    print(f"  ratio      {_spread(ratios)} (above 1: ours is faster)")
    print(f"  largest difference of the images {difference:.1e}, of a range of 1", flush=True)


def _spread(values: list[float]) -> str:
    return (
        f"median {statistics.median(values):7.3f}  min {min(values):7.3f}  max {max(values):7.3f}"
    )


def compare_loops(size: Size, precision: Precision) -> None:
    """The three comparisons of the loops."""
    stage = make_stage(size.size_px)
    millions = sum(p.numel() for p in stage.parameters()) / 1e6
    print(
        f"{size.images} images of {size.size_px} px, {size.steps} DDIM steps, U-Net with "
        f"{millions:.1f} M parameters, {precision}, {torch.get_num_threads()} threads, "
        f"{size.rounds} rounds"
    )
    compare(
        "guidance 1, beside diffusers.DDIMPipeline",
        size,
        lambda: our_images(stage, size, guidance=1, precision=precision),
        lambda: pipeline_images(stage, size, precision=precision),
    )
    for batched, name in ((False, "two forwards"), (True, "one batched forward")):
        compare(
            f"guidance 2, beside diffusers.DDIMScheduler with {name} per step",
            size,
            lambda: our_images(stage, size, guidance=2, precision=precision),
            lambda batched=batched: guided_images(
                stage, size, guidance=2, batched=batched, precision=precision
            ),
        )


# ---- the command --------------------------------------------------------------------------------


def measure_generate(name: str, prompt: str, images: int) -> None:
    """Print wall time and peak memory of `cascade generate`, imports taken apart."""
    try:
        recipe = find_recipe(name, "pipelines")
    except CascadeError:
        recipe = None
    if recipe is None or not has_weights(recipe.parent):
        print(f"cascade generate {name}: no weights bundled")
        return
    with tempfile.TemporaryDirectory() as out:
        imports_s, _ = _run("import cascade.generation.files")
        command = ["generate", name, prompt, "-n", str(images), "--seed", "0", "-o", out]
        all_s, peak_mib = _run("from cascade.cli.main import run; run()", *command)
        pictures = len(list(Path(out).glob("[0-9]*.png")))
    what = f'cascade generate {name} "{prompt}" -n {images}'
    print(f"{what} ({os.cpu_count()} CPUs): {pictures} images")
    print(f"  wall time {all_s:.1f} s, of which imports {imports_s:.1f} s")
    print(f"  peak memory {peak_mib:.0f} MiB")


def measure_upscale(side_px: int) -> None:
    """Print wall time and peak memory of `cascade upscale --steps 1` of one square picture, x4."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.png", Path(folder) / "made.png"
        noise = torch.randint(256, (side_px, side_px, 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(given)
        command = ["upscale", str(given), "-o", str(made), "--steps", "1", "--seed", "0"]
        all_s, peak_mib = _run("from cascade.cli.main import run; run()", *command)
        Image.MAX_IMAGE_PIXELS = None  # it is our own
        with Image.open(made) as result:
            size = result.size
    print(f"cascade upscale --steps 1, {side_px} x {side_px} -> {size[0]} x {size[1]} px")
    print(f"  wall time {all_s:.1f} s, peak memory {peak_mib:.0f} MiB")


def _run(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak MiB of a Python process; its output goes to our standard error."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"the command failed: {' '.join(arguments) or code}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, usage.ru_maxrss / per_mib


def main() -> None:
    """Parse the command line and run both parts."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="32 px, 10 steps: about 20 seconds")
    parser.add_argument("--size-px", type=int, help=f"side of the images (default {FULL.size_px})")
    parser.add_argument("--images", type=int, help=f"images per turn (default {FULL.images})")
    parser.add_argument(
        "--steps", type=int, help=f"a divisor of 1000, where both agree (default {FULL.steps})"
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each loop (default {FULL.rounds})")
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32")
    parser.add_argument("--pipeline", default="emoji-1024", help="what `cascade generate` makes")
    parser.add_argument("--prompt", default="a cat with tears of joy")
    parser.add_argument("--skip-generate", action="store_true", help="only compare the loops")
    parser.add_argument("--skip-loops", action="store_true", help="only time `cascade generate`")
    parser.add_argument("--upscale-px", type=int, help="only upscale an image of so many px, x4")
    given = parser.parse_args()
    if given.upscale_px:
        measure_upscale(given.upscale_px)
        return
    base = QUICK if given.quick else FULL
    chosen = {name: getattr(given, name) or getattr(base, name) for name in vars(base)}
    if 1000 % chosen["steps"]:
        parser.error("--steps must divide 1000: elsewhere diffusers' DDIM takes other steps.")
    if not given.skip_loops:
        compare_loops(Size(**chosen), given.precision)
    if not given.skip_generate:
        measure_generate(given.pipeline, given.prompt, 4)


if __name__ == "__main__":
    main()
