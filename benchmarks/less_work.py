"""Less work for the same image: tiles that fit, bf16 weights, and features that steps share.

    tiles     pixels that go through the network per pixel of the result, for inputs of many sizes,
              and how far tiles with some overlaps are from one tile, at seams and elsewhere
    bf16      processor time with weights that autocast converts in every call over that with
              converted weights, and the errors of both against float32
    reuse     processor time of full calls over that of calls that share features, and how near the
              images are

Ratios are medians over turns of both sides (A B A B), in processor time of one thread.

Shapes: C channels, h and w pixels of the input.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cascade import CascadePipeline
from cascade.conditioning.inputs import Inputs
from cascade.diffusion_stage import DiffusionStage
from cascade.sampling.memory import TILE_PX
from cascade.sampling.spans import Span
from cascade.sampling.tiles import Tiles, Tiling
from cascade.stage import Run

EPILOG = """examples:
  python benchmarks/less_work.py
  python benchmarks/less_work.py tiles
  taskset -c 0 python benchmarks/less_work.py bf16 reuse --rounds 5
"""
PARTS = ("tiles", "bf16", "reuse")
INPUT_SIDES_PX = (64, 128, 160, 256, 512, 1024, 2048)
OVERLAPS_PX = (0, 16, 32, 48, 64, 96)
STAGES = (  # pipeline, stage, side of the result in pixels, images
    ("photo-x4", "upsampler", 256, 1),
    ("emoji-1024", "base", 64, 4),
    ("emoji-1024", "upsampler_256", 256, 1),
    ("photo-colour", "colours", 128, 2),
)
SEAM_PX = 8  # a seam reaches so far to both sides of the middle of an overlap


def load_stage(pipeline: str, name: str) -> DiffusionStage:
    """A stage of a bundled pipeline."""
    stage = CascadePipeline.from_pretrained(pipeline).stages[name]
    assert isinstance(stage, DiffusionStage)
    return stage


def draw(stage: DiffusionStage, image: Tensor | None, images: int = 1, **run: Any) -> Tensor:
    """Draw images (B, C, H, W), seeds from 0 on; settings are changes of the stage's own."""
    settings = stage.sampling.changed(**run.pop("settings", {}))
    inputs = Inputs({} if image is None else {"image": image})
    return stage.run(range(images), inputs, run=Run(settings=settings, **run))


def decibels(difference: Tensor) -> float:
    """PSNR of images in [-1, 1] with this difference."""
    return float(-10 * (difference / 2).pow(2).mean().log10())


def seconds(work: Callable[[], object]) -> float:
    """Processor time of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


# ---- tiles --------------------------------------------------------------------------------------


def sky_and_texture(height: int, width: int) -> Tensor:
    """Upper half a sky without detail, lower half a rough texture: (3, h, w) in [-1, 1]."""
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    x = torch.linspace(0, 1, width)[None].expand(height, width)
    sky = torch.stack([0.1 + 0.5 * y + 0.1 * x, 0.2 + 0.4 * y, 0.6 + 0.2 * y - 0.1 * x]) * 2 - 1
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    texture = noise * 0.8 - 0.4 + torch.sin(x * 60 + y * 40) * 0.3
    return torch.where(y > 0.5 + 0.15 * torch.sin(x * 7), texture, sky)


def network_pixels(tiling: Tiling) -> int:
    """Pixels that go through the network in one step."""
    height, width = (sum(s.stop - s.start for s in axis) for axis in (tiling.rows, tiling.columns))
    return height * width


def near_seams(tiling: Tiling, size: tuple[int, int]) -> Tensor:
    """Which pixels (H, W) lie near the middle of an overlap."""
    near = torch.zeros(size, dtype=torch.bool)
    for middle in _middles(tiling.rows):
        near[middle - SEAM_PX : middle + SEAM_PX] = True
    for middle in _middles(tiling.columns):
        near[:, middle - SEAM_PX : middle + SEAM_PX] = True
    return near


def _middles(axis: list[Span]) -> list[int]:
    return [(first.stop + second.start) // 2 for first, second in itertools.pairwise(axis)]


def measure_tiles() -> None:
    """Print the cost of tiles, and their distance from one tile."""
    print(f"photo-x4, tiles of at most {TILE_PX}² px: network pixels per pixel of the result")
    for side in INPUT_SIDES_PX:
        tiling = Tiling((4 * side, 4 * side), 8, Tiles(TILE_PX), 1)
        share = network_pixels(tiling) / (4 * side) ** 2
        print(f"  input {side:4d} px: {share:.3f} in {len(tiling.rows)} x {len(tiling.columns)}")
    stage = load_stage("photo-x4", "upsampler")
    image = sky_and_texture(64, 128)[None]
    whole = draw(stage, image, settings={"steps": 4})
    print("tiles of at most 192² px beside one tile, in dB")
    for overlap_px in OVERLAPS_PX:
        tiles = Tiles(192, overlap_px)
        near = near_seams(Tiling((256, 512), 8, tiles, 1), (256, 512))
        difference = draw(stage, image, tiles=tiles, settings={"steps": 4}) - whole
        at_seams, elsewhere = decibels(difference[..., near]), decibels(difference[..., ~near])
        print(f"  overlap {overlap_px:3d} px: at seams {at_seams:.1f}, elsewhere {elsewhere:.1f}")


# ---- bf16 and reuse -----------------------------------------------------------------------------


def stage_image(stage: DiffusionStage, side_px: int, images: int) -> Tensor | None:
    """A smooth input (B, C, h, w) for a stage; None if it takes none."""
    contract = stage.contract
    if not contract.needs_image:
        return None
    noise = torch.rand(images, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    size = (side_px // contract.scale,) * 2
    image = torch.nn.functional.interpolate(noise, size=size, mode="bicubic").clamp(-1, 1)
    return image if contract.scale > 1 else image[:, :1]


def measure_bf16(rounds: int) -> None:
    """Print what converted weights save."""
    print("weights that autocast converts, over weights in bf16: time, and errors of 255 (rms)")
    for pipeline, name, side_px, images in STAGES:
        stage = load_stage(pipeline, name)
        image = stage_image(stage, side_px, images)
        slow = copy.copy(stage.network)
        slow.for_bf16 = lambda slow=slow: slow  # as every network did once
        networks = {"converted": slow, "bf16": stage.network}
        values: dict[str, Any] = {"images": images, "settings": {"steps": 3}}
        exact = draw(stage, image, **values)
        times: dict[str, list[float]] = {each: [] for each in networks}
        errors = {}
        for _ in range(rounds):
            for each, network in networks.items():
                stage.network = network
                start = time.process_time()
                drawn = draw(stage, image, precision="bf16", **values)
                times[each].append(time.process_time() - start)
                errors[each] = float((drawn - exact).pow(2).mean().sqrt()) * 127.5
        ratio = statistics.median(
            a / b for a, b in zip(times["converted"], times["bf16"], strict=True)
        )
        print(
            f"  {pipeline} {name}: {ratio:.2f}, errors {errors['converted']:.2f} and "
            f"{errors['bf16']:.2f}"
        )


def measure_reuse(rounds: int) -> None:
    """Print what shared features save, and how near the pictures are."""
    print("full calls over calls that share features: time, and PSNR between them")
    for pipeline, name, side_px, images in STAGES:
        stage = load_stage(pipeline, name)
        image = stage_image(stage, side_px, images)

        def drawn(reuse: int, stage=stage, image=image, images=images) -> Tensor:
            return draw(stage, image, images, settings={"reuse": reuse}, precision="auto")

        near = decibels(drawn(2) - drawn(1))
        ratios = [seconds(lambda: drawn(1)) / seconds(lambda: drawn(2)) for _ in range(rounds)]
        print(
            f"  {pipeline} {name}, {stage.sampling.steps} steps: {statistics.median(ratios):.2f}, "
            f"{near:.1f} dB"
        )


def main() -> None:
    """Parse the command line and measure the parts that it names."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default 3)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    torch.set_num_threads(1)
    parts = options.parts or PARTS
    if "tiles" in parts:
        measure_tiles()
    if "bf16" in parts:
        measure_bf16(options.rounds)
    if "reuse" in parts:
        measure_reuse(options.rounds)


if __name__ == "__main__":
    main()
