"""Bands of measured numbers: the memory of upscaling large GeoTIFFs, and the speed of reading.

    memory    the most memory that doubling a 4-band uint16 GeoTIFF takes, by a tiny network and one
              step, for several sides; the growth between them, and the disk space of its arrays
    reading   13-band 16-bit tiles that the data path decodes, crops and turns each second, beside
              the crops that the network of the recipe super-resolution-bands trains on

Memory is measured in a process of its own, speed in processor time of one thread.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from side_by_side import peak_mib, print_result, results_apart

EPILOG = """examples:
  python benchmarks/bands.py
  python benchmarks/bands.py memory --sizes-px 1024 20000x512
  python benchmarks/bands.py memory --sizes-px 512x256 512x512 512x1024 --in-memory-mib 2
  taskset -c 0 python benchmarks/bands.py reading
"""
PARTS = ("memory", "reading")
BANDS, TILE_BANDS = 4, 13
TILE_PX, TILES = 256, 64
BATCH, STEPS = 8, 3
SCENE_TILE_PX = 256


def write_scene(path: Path, size_px: tuple[int, int]) -> None:
    """Write a GeoTIFF of smooth numbers with some noise, tile by tile."""
    import tifffile

    draw = np.random.default_rng(0)

    def tiles():
        for _ in range(math.prod(math.ceil(side / SCENE_TILE_PX) for side in size_px)):
            smooth = np.linspace(1000, 9000, SCENE_TILE_PX)[:, None, None]
            noise = draw.normal(0, 200, (SCENE_TILE_PX, SCENE_TILE_PX, BANDS))
            yield (smooth + noise).astype(np.uint16)

    places = [(33550, "d", 3, (10.0, 10, 0), True), (33922, "d", 6, (0.0, 0, 0, 5e5, 6e6, 0), True)]
    with tifffile.TiffWriter(path, bigtiff=math.prod(size_px) > 2e8) as writer:
        writer.write(
            tiles(), shape=(*size_px, BANDS), dtype=np.uint16, photometric="minisblack",
            planarconfig="contig", tile=(SCENE_TILE_PX, SCENE_TILE_PX), compression="zlib",
            extratags=places, metadata=None,
        )  # fmt: skip


def measure_memory(folder: Path, in_memory_mib: float | None) -> None:
    """Double a scene and hand over the peak of this process."""
    from cascade import CascadePipeline, mapped_arrays
    from cascade.bulk.commands import prepare_upscaling
    from cascade.bulk.request import Request
    from cascade.conditioning.low_resolution import LowResolution
    from cascade.contract import Contract
    from cascade.diffusion.process import NoiseProcess
    from cascade.diffusion.schedule import NoiseSchedule
    from cascade.diffusion_stage import DiffusionStage
    from cascade.restoration.upscaling import Upscaling
    from cascade.sampling.settings import SamplingSettings
    from cascade.space import Space

    stage = DiffusionStage.build(
        Contract(
            Space(size_px=64, channels=BANDS, range=(0, 10_000)), (LowResolution(size_px=32),)
        ),
        NoiseProcess(NoiseSchedule()),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 4},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    if in_memory_mib is not None:
        mapped_arrays.MOST_IN_MEMORY_BYTES = int(in_memory_mib * 2**20)
    model, scene = folder / "model", folder / "scene.tif"
    CascadePipeline.from_stages({"up": stage}).save_pretrained(model)
    before_mib, start = peak_mib(), time.perf_counter()
    request = Request(inputs=[str(scene)], out=folder / "large.tif", model=str(model), device="cpu")
    prepare_upscaling(request, Upscaling()).run()
    assert (folder / "large.tif").exists()
    seconds = time.perf_counter() - start
    print_result({"before_mib": before_mib, "peak_mib": peak_mib(), "seconds": seconds})


def compare_memory(sizes: list[str], in_memory: list[str]) -> None:
    """Print the peak of each size, and how it grows."""
    last: tuple[float, float] | None = None
    for text in sizes:
        width, _, height = text.partition("x")
        size_px = int(height or width), int(width)
        with tempfile.TemporaryDirectory() as folder:
            write_scene(Path(folder) / "scene.tif", size_px)
            (result,) = results_apart(__file__, ["--measure", folder, *in_memory], 1)
        peak, megapixels, growth = result["peak_mib"], math.prod(size_px) / 1e6, ""
        if last is not None:
            growth = f", {(peak - last[1]) / (megapixels - last[0]):.1f} MiB per further megapixel"
        print(
            f"doubling {size_px[1]} x {size_px[0]} px: at most {peak:,.0f} MiB "
            f"({result['before_mib']:,.0f} MiB before) in {result['seconds']:.0f} s{growth}",
            flush=True,
        )
        last = megapixels, peak


def compare_reading(folder: Path) -> None:
    """Print tiles and crops a second."""
    from cascade.building.stages import build_stage
    from cascade.data.band_decoding import BandDecoding
    from cascade.data.band_encoding import BandEncoding
    from cascade.data.batches import collate
    from cascade.data.building import build_shards
    from cascade.data.sources import open_source
    from cascade.data.training_images import TrainingImages
    from cascade.imaging.rasters.layout import Layout
    from cascade.recipe.finding import find_recipe
    from cascade.recipe.reading import load_stage_recipe
    from cascade.training.objectives.denoising import Denoising

    draw = np.random.default_rng(0)
    (folder / "tiles").mkdir()
    smooth = np.linspace(1000, 9000, TILE_PX)
    for number in range(TILES):
        noise = draw.normal(0, 200, (TILE_BANDS, TILE_PX, TILE_PX))
        np.save(folder / "tiles" / f"{number}.npy", (smooth + noise).astype(np.uint16))
    layout = Layout(TILE_BANDS)
    build_shards(
        open_source(str(folder / "tiles"), layout=layout), folder / "shards", origin="tiles",
        encoding=BandEncoding(), decoding=BandDecoding(TILE_BANDS),
    )  # fmt: skip
    words = [f"space.channels={TILE_BANDS}", "data.range=[0,10000]", "data.percentiles=null"]
    recipe = load_stage_recipe(find_recipe("super-resolution-bands", "stages"), words)
    stage = build_stage(recipe, {})
    source = open_source(str(folder / "shards" / "train-*.tar"), layout=layout)
    images = TrainingImages(
        source, stage.contract, crop_px=recipe.data.crop_px, flip=("x", "y"), rotate90=True,
        cache_mib=0,
    )  # fmt: skip
    start = time.process_time()
    samples = [images[position] for position in range(TILES)]
    tiles_per_s = TILES / (time.process_time() - start)
    optimiser = torch.optim.AdamW(stage.parameters(), 1e-4)
    batch, seconds = collate(samples[:BATCH]), []
    for _ in range(STEPS):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = Denoising().loss(stage, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seconds.append(time.process_time() - start)
    crops_per_s = BATCH / min(seconds)
    print(
        f"{TILE_BANDS} bands of {TILE_PX} px: {tiles_per_s:.1f} tiles/s from shards by one process"
        f", {crops_per_s:.2f} crops of {recipe.data.crop_px} px/s by the network in bf16 on one "
        f"thread: {tiles_per_s / crops_per_s:.1f} times as many"
    )


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; default: all")
    parser.add_argument(
        "--sizes-px",
        nargs="+",
        default=["1024", "2048", "4096"],
        help="sides of the scenes, or WIDTHxHEIGHT",
    )
    parser.add_argument(
        "--in-memory-mib",
        type=float,
        help="larger arrays are files, as those of larger scenes are; default: 256 MiB",
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not set(arguments.parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    return arguments


def main() -> None:
    """Parse the command line and print the chosen parts."""
    arguments = parse_arguments()
    if arguments.measure:
        measure_memory(Path(arguments.measure), arguments.in_memory_mib)
        return
    parts = arguments.parts or PARTS
    if "memory" in parts:
        limit = arguments.in_memory_mib
        words = [] if limit is None else ["--in-memory-mib", str(limit)]
        compare_memory(arguments.sizes_px, words)
    if "reading" in parts:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            compare_reading(Path(folder))


if __name__ == "__main__":
    main()
