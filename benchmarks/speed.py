"""How fast Cascade is: one table, each figure beside its aim and beside the others in one run.

    upscale     processor seconds per megapixel of an x4 result, beside RealESRGAN and DAT-light
    photograph  `cascade upscale` of a large photograph as a whole process
    generate    `cascade generate -n 16` of 256 px after imports
    latent      256 px by the recipe `emoji-latent-256` beside the first two stages of `emoji-1024`
    colour      one view of 128 px through `photo-colour`
    start       `cascade generate -n 1` of 256 px as a whole process, over `import torch`
    growth      cost of a pixel of a large result over that of a small one
    likelihood  exact likelihoods by the ODE, 4 images of 64 px, as `cascade evaluate` takes them
    loop        our loop beside `diffusers.DDIMPipeline`, the same network in both
    limit       share of the core's speed that each bundled network reaches, in bf16 if it has that
    engine      calls of each bundled network by OpenVINO (`--engine openvino`) beside torch
    workers     `cascade upscale` of a folder by one worker and by two, with a thread each

Everything but `photograph`, `generate` and `workers` counts processor time of one thread, which a
busy machine disturbs less than wall time. Sides that are compared take turns.

Shapes: B images, C channels, H and W pixels, h and w pixels of the input.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from less_work import STAGES, draw, load_stage, sky_and_texture, stage_image
from photos import Method, dat_light, load_ours, realesrgan
from PIL import Image
from sampling import Size, make_stage, our_images, pipeline_images
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascade import CascadePipeline, flow_bits_per_dimension
from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.stages import apply_sampling, build_stage
from cascade.conditioning.batch import Batch
from cascade.devices import autocast, has_fast_bf16
from cascade.diffusion_stage import DiffusionStage
from cascade.extras import EXTRAS, install_command
from cascade.networks.stage_network import StageNetwork
from cascade.recipe.finding import UPSCALER, find_recipe
from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe
from cascade.stage import Stage

EPILOG = """examples:
  python benchmarks/speed.py
  python benchmarks/speed.py upscale limit --rounds 5
  python benchmarks/speed.py photograph --photograph-mp 12
"""
COMMAND = "from cascade.cli.main import run; run()"
LATENT, PIXELS = "emoji-latent-256", "emoji-1024"  # pipelines that draw 256 px
CLEAN_UPSCALER = "photo-x4"  # measured beside the default one
PEERS = {"RealESRGAN-x4plus": realesrgan, "DAT-light": dat_light}
DRAWN = 4  # pictures in a batch of theirs
MATRIX = 2048  # side of the matrices that measure the core
CPU = torch.device("cpu")
BULK_IMAGES, BULK_PX = 24, 80  # a folder of images that are large enough to be upscaled one by one


class Table:
    """Rows of measure, figure and aim, printed as they come."""

    def __init__(self) -> None:
        self.row("measure", "figure", "aim")

    def row(self, measure: str, figure: str, aim: str = "") -> None:
        """Print one row."""
        print(f"{measure:72}{figure:>14}{aim:>12}", flush=True)


def processor_s(work: Callable[[], object]) -> float:
    """Processor seconds of some work in this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each piece of work, in turns, after one turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            seconds = processor_s(work)
            if turn:
                times[name].append(seconds)
    return times


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median of the ratios of paired turns."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def process_s(code: str, *arguments: str, threads: int | None = None) -> tuple[float, float]:
    """Wall and processor seconds of a Python process; its output goes to our standard error."""
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    command = [sys.executable, "-c", code, *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the command failed: {' '.join(arguments) or code}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def until_256(pipeline: str) -> list[str]:
    """The options that stop a pipeline of more than two stages after the second, at 256 px."""
    names = CascadePipeline.from_pretrained(pipeline).stages.names
    return ["--stop-at", names[1]] if len(names) > 2 else []


# ---- enlarging ----------------------------------------------------------------------------------


def measure_upscale(table: Table, options: argparse.Namespace) -> None:
    """Ours and its peers on the same 128 x 128 px picture."""
    image = sky_and_texture(128, 128)[None]
    ours = list(dict.fromkeys((options.upscaler, CLEAN_UPSCALER)))
    methods: dict[str, Method] = {name: load_ours(name) for name in ours}
    for name, load in PEERS.items():
        try:
            methods[name] = load()
        except ImportError as error:
            print(f'{name} is left out ({error}); pip install "cascade-diffusion[peers]"')
    works = {name: partial(method, image, [0]) for name, method in methods.items()}
    with torch.no_grad():
        times = in_turns(works, options.rounds)
    megapixels = 16 * image[0, 0].numel() / 1e6
    for name, values in times.items():
        figure = statistics.median(values) / megapixels
        table.row(f"x4 by {name}, CPU s per output megapixel", f"{figure:.2f}")
        if name in PEERS:
            aim = "<= 0.10" if name == "RealESRGAN-x4plus" else ""
            for own in ours:
                table.row(f"  {own} over {name}", f"{ratio(times[own], values):.2f}", aim)


def measure_photograph(table: Table, options: argparse.Namespace) -> None:
    """`cascade upscale` of one picture of 4:3 as a whole process, x4."""
    height = round((options.photograph_mp * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.png", Path(folder) / "made.jpg"
        save_picture(sky_and_texture(height, width), given)
        command = ["upscale", str(given), "-o", str(made), "--model", options.upscaler, "-q"]
        wall_s, _ = process_s(COMMAND, *command)
    what = f"x4 of 12 MP by {options.upscaler}, {os.cpu_count()} CPUs, whole process"
    if options.photograph_mp != 12:
        what += f", from {options.photograph_mp:g} MP"
    table.row(what, f"{minutes_of_12_mp(wall_s, options.photograph_mp):.1f} min", "<= 10 min")


def save_picture(image: Tensor, file: Path) -> None:
    """Write an image (3, H, W) in [-1, 1]."""
    picture = ((image + 1) * 127.5).round().to(torch.uint8)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)


def minutes_of_12_mp(seconds: float, megapixels: float) -> float:
    """Minutes for 12 megapixels, if time grows with the number of pixels."""
    return seconds / 60 * 12 / megapixels


def measure_growth(table: Table, options: argparse.Namespace) -> None:
    """Cost of an output pixel of a large input over that of a 64 px input, in one step each."""
    pipeline = CascadePipeline.from_pretrained(options.upscaler)
    pipeline.set_progress_bar_config(disable=True)

    def per_pixel(side: int) -> float:
        image = sky_and_texture(side, side)[None]
        work = partial(pipeline.upscale, image, scale=4, seed=0, steps=1)
        return min(processor_s(work) for _ in range(3 if side == 64 else 1)) / side**2

    small = per_pixel(64)
    figure = f"{per_pixel(options.large_px) / small:.2f}"
    table.row(f"output pixel at {options.large_px} px input over 64 px", figure, "<= 1.3")


def measure_workers(table: Table, options: argparse.Namespace) -> None:
    """`cascade upscale` of one folder by one worker and by two, with a thread each, x4."""
    whole: dict[int, list[float]] = {1: [], 2: []}  # seconds by the number of workers
    late: dict[int, list[float]] = {1: [], 2: []}
    cores: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given"
        given.mkdir()
        for number in range(BULK_IMAGES):
            image = sky_and_texture(BULK_PX, BULK_PX).roll(number, -1)  # no two are the same
            save_picture(image, given / f"{number}.png")
        for turn in range(options.rounds):
            for workers in whole:
                out = Path(folder) / f"made-{turn}-{workers}"
                command = ["upscale", str(given), "-o", str(out), "--model", options.upscaler, "-q"]
                command += ["--workers", str(workers)]
                wall_s, cpu_s = process_s(COMMAND, *command, threads=1)
                whole[workers].append(wall_s)
                cores[workers].append(cpu_s / wall_s)
                late[workers].append(second_half_s([*out.glob("*.png")]))
    what = f"x4 of {BULK_IMAGES} images of {BULK_PX} px by {options.upscaler}"
    table.row(f"{what}, 1 worker", f"{statistics.median(whole[1]):.1f} s")
    table.row("  by 2 workers", f"{statistics.median(whole[2]):.1f} s")
    table.row("  speed, 2 workers over 1, whole process", f"{ratio(whole[1], whole[2]):.2f}")
    measure = "  the same in the second half of the images, after start-up"
    table.row(measure, f"{ratio(late[1], late[2]):.2f}", ">= 1.8")
    one, two = (statistics.median(each) for each in cores.values())
    table.row(
        "  cores that 1 and 2 workers got; fewer if others were busy", f"{one:.2f}, {two:.2f}"
    )


def second_half_s(results: list[Path]) -> float:
    """Seconds between the middle one of some results and the last, by when they were written.

    The second worker starts while the first one is at work, but before the middle one is written.
    """
    written = sorted(each.stat().st_mtime for each in results)
    return written[-1] - written[len(written) // 2 - 1]


# ---- drawing and colouring ----------------------------------------------------------------------


def measure_generate(table: Table, options: argparse.Namespace) -> None:
    """`cascade generate -n 16` of the second stage's size, less its imports."""
    until = until_256(options.generator)
    with tempfile.TemporaryDirectory() as out:
        imports_s, _ = process_s("import cascade.generation.files")
        command = ["generate", options.generator, "-n", "16", "--seed", "0", "-o", out, "-q"]
        wall_s, _ = process_s(COMMAND, *command, *until)
    stages = " ".join([options.generator, *until])
    measure = f"generate {stages} -n 16 after import, {os.cpu_count()} CPUs"
    table.row(measure, f"{wall_s - imports_s:.1f} s", "<= 2 s")


def untrained(name: str) -> CascadePipeline:
    """The first two stages of a pipeline; random weights take as long as trained ones."""
    sections = load_pipeline_recipe(find_recipe(name, "pipelines")).stages[:2]
    stages: dict[str, Stage] = {}
    for section in reversed(sections):  # latents are those of the decoder after them
        recipe = load_stage_recipe(find_recipe(section.recipe, "stages"))
        after = next(iter(stages.values()), None)
        encoder = after if isinstance(after, AutoencoderStage) else None
        stage = build_stage(recipe, lambda fields: {each: [each] for each in fields}, None, encoder)
        settings = apply_sampling(stage.sampling, section.sampling)
        stages = {section.name: stage.eval().with_sampling(settings), **stages}
    pipeline = CascadePipeline.from_stages(stages)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_256(pipeline: CascadePipeline) -> None:
    """Draw a batch with the pipeline's own settings."""
    pipeline("a cat", num_images=DRAWN, seed=0, output_type="pt")


def measure_latent(table: Table, options: argparse.Namespace) -> None:
    """256 px by latents and by pixels, with equal steps and guidance of the first stage."""
    pipelines = {name: untrained(name) for name in (LATENT, PIXELS)}
    bases = [each.stages.first.sampling for each in pipelines.values()]
    ((steps, guidance),) = {(each.steps, each.guidance) for each in bases}  # the same of both
    works = {name: partial(draw_256, each) for name, each in pipelines.items()}
    times = in_turns(works, options.rounds)
    for name, seconds in times.items():
        figure = f"{statistics.median(seconds) / DRAWN:.2f}"
        table.row(f"256 px by {name}, {steps} steps, guidance {guidance:g}, CPU s", figure)
    table.row("  pixels over latents", f"{ratio(times[PIXELS], times[LATENT]):.2f}", ">= 3")


def measure_start(table: Table, options: argparse.Namespace) -> None:
    """`cascade generate -n 1 --steps 1` of 256 px over `import torch`, processor time."""
    until = until_256(options.generator)
    over = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as out:
            command = ["generate", options.generator, "-n", "1", "--seed", "0", "-o", out, "-q"]
            _, torch_s = process_s("import torch")
            _, all_s = process_s(COMMAND, *command, "--steps", "1", *until)
        over.append(all_s - torch_s)
    stages = " ".join([options.generator, *until])
    measure = f"generate {stages} -n 1 --steps 1, over import torch"
    table.row(measure, f"+{statistics.median(over):.2f} s", "<= +1.5 s")


def measure_colour(table: Table, options: argparse.Namespace) -> None:
    """One grey view of 128 px, at the stage's own settings."""
    stage = load_stage("photo-colour", "colours")
    image = stage_image(stage, 128, 1)
    work = partial(draw, stage, image, precision="auto")
    seconds = statistics.median(in_turns({"colour": work}, options.rounds)["colour"])
    table.row("colour of a view of 128 px, CPU s", f"{seconds:.2f} s", "<= 0.06 s")


def measure_likelihood(table: Table, options: argparse.Namespace) -> None:
    """Bits per dimension of one batch by the base of `emoji-1024`, once."""
    stage = load_stage("emoji-1024", "base")
    image = sky_and_texture(64, 64)
    conditions = {
        "labels": torch.zeros(DRAWN, 2, dtype=torch.int64),
        "text": (("a cat",),) * DRAWN,
    }
    batch = Batch(
        images=image.expand(DRAWN, -1, -1, -1), seeds=tuple(range(DRAWN)), conditions=conditions
    )
    flow_bits_per_dimension(stage, batch, steps=2)  # to warm up
    seconds = processor_s(lambda: flow_bits_per_dimension(stage, batch))
    table.row(f"likelihoods of {DRAWN} images of 64 px by the ODE, CPU s", f"{seconds:.0f} s")
    measure = "  the same of 100 images on 2 cores, from that"
    table.row(measure, f"{seconds / DRAWN * 100 / 2 / 60:.1f} min", "<= 10 min")


# ---- loop and networks --------------------------------------------------------------------------


def measure_loop(table: Table, options: argparse.Namespace) -> None:
    """The same network in our loop and in `diffusers.DDIMPipeline`."""
    size = Size(size_px=64, images=4, steps=20, rounds=options.rounds)
    stage = make_stage(size.size_px)
    works = {
        "diffusers": partial(pipeline_images, stage, size, precision="auto"),
        "ours": partial(our_images, stage, size, guidance=1, precision="auto"),
    }
    times = in_turns(works, options.rounds)
    figure = f"{ratio(times['diffusers'], times['ours']):.2f}"
    table.row("speed of our loop over diffusers' DDIMPipeline", figure, ">= 1")


def core_gflops(rounds: int, dtype: torch.dtype) -> float:
    """Speed of this core on large matrices, the best of some rounds."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    seconds = min(processor_s(lambda: a @ b) for _ in range(rounds + 2))
    return 2 * MATRIX**3 / seconds / 1e9


def measure_limit(table: Table, options: argparse.Namespace) -> None:
    """Multiplications and additions per second of each bundled stage, over those of the core."""
    dtype = torch.bfloat16 if has_fast_bf16(torch.device("cpu")) else torch.float32
    limit = core_gflops(options.rounds, dtype)  # in the type in which stages sample here
    table.row(f"{str(dtype).removeprefix('torch.')} matrices on this core", f"{limit:.0f} GFLOP/s")
    for pipeline, name, side_px, images in STAGES:
        stage = load_stage(pipeline, name)
        image = stage_image(stage, side_px, images)

        def work(steps: int, stage=stage, image=image, images=images) -> Tensor:
            return draw(stage, image, images, settings={"steps": steps}, precision="auto")

        with FlopCounterMode(display=False) as counter:
            work(1)
        works = {"one": partial(work, 1), "five": partial(work, 5)}
        times = in_turns(works, options.rounds)
        share = counter.get_total_flops() / 1e9 / step_s(times["one"], times["five"]) / limit
        table.row(f"  {pipeline} {name}, share of that", f"{share:.2f}", ">= 0.6")


def step_s(one: list[float], five: list[float]) -> float:
    """Seconds of a step: one and five steps differ by four steps and nothing else."""
    return (statistics.median(five) - statistics.median(one)) / 4


def measure_engine(table: Table, options: argparse.Namespace) -> None:
    """The same calls of each bundled network by torch and by OpenVINO."""
    if not EXTRAS["openvino"].is_installed:
        print(f"engine is left out (openvino is not installed); {install_command('openvino')}")
        return
    is_half = has_fast_bf16(CPU)
    for pipeline, name, side_px, images in STAGES:
        stage = load_stage(pipeline, name)
        calls = network_calls(stage, stage_image(stage, side_px, images), images)
        engine = CascadePipeline.from_stages({name: stage}).with_engine("openvino").stages[name]
        assert isinstance(engine, DiffusionStage)
        network = stage.network.for_bf16() if is_half else stage.network
        works = {
            "torch": partial(outputs, network, calls),
            "OpenVINO": partial(outputs, engine.network, calls),
        }
        times = in_turns(works, options.rounds)
        milliseconds = {each: statistics.median(times[each]) / len(calls) * 1e3 for each in works}
        what = f"{pipeline} {name} in {'bfloat16' if is_half else 'float32'}"
        table.row(f"{what}, CPU ms per call by torch", f"{milliseconds['torch']:.0f}")
        table.row("  by OpenVINO", f"{milliseconds['OpenVINO']:.0f}")
        figure = f"{ratio(times['torch'], times['OpenVINO']):.2f}"
        table.row("  speed, OpenVINO over torch", figure)
        figure = f"{largest_difference(works['OpenVINO'](), works['torch']()):.1g}"
        table.row("  largest difference of outputs, over their root mean square", figure, "<= 0.01")


def network_calls(
    stage: DiffusionStage, image: Tensor | None, images: int
) -> list[tuple[Any, ...]]:
    """The arguments of each call of a network while it draws in a few steps."""
    calls: list[tuple[Any, ...]] = []
    hook = stage.network.register_forward_pre_hook(lambda _, arguments: calls.append(arguments))
    draw(stage, image, images, settings={"steps": 3}, precision="fp32")
    hook.remove()
    return calls


@torch.no_grad()
def outputs(network: StageNetwork, calls: list[tuple[Any, ...]]) -> list[Tensor]:
    """The outputs of a network, in the precision in which stages sample here."""
    with autocast(CPU, "auto"):
        return [network(*each).float() for each in calls]


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of two outputs of a call, over the root mean square of theirs."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.square().mean().sqrt()) for a, b in pairs)


PARTS: dict[str, Callable[[Table, argparse.Namespace], None]] = {
    "upscale": measure_upscale,
    "growth": measure_growth,
    "latent": measure_latent,
    "likelihood": measure_likelihood,
    "colour": measure_colour,
    "start": measure_start,
    "loop": measure_loop,
    "limit": measure_limit,
    "engine": measure_engine,
    "workers": measure_workers,
    "generate": measure_generate,
    "photograph": measure_photograph,
}


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: all)")
    add("--rounds", type=int, default=3, help="turns of each side (default 3)")
    add("--upscaler", default=UPSCALER, help=f"pipeline that upscales (default {UPSCALER})")
    add("--generator", default="emoji-1024", help="pipeline that generates (default emoji-1024)")
    add(
        "--photograph-mp",
        type=float,
        default=0.5,
        help="megapixels, from which the time of 12 is computed (default 0.5)",
    )
    add("--large-px", type=int, default=1024, help="side of the large input (default 1024)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    torch.set_num_threads(1)
    table = Table()
    for name in options.parts or PARTS:
        PARTS[name](table, options)


if __name__ == "__main__":
    main()
