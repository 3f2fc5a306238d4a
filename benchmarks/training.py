"""Training speed and memory: our loop beside a plain diffusers loop and two published trainers.

Every loop runs in a fresh interpreter on the same images, with the same batch size; the loops
take turns, so that a busy machine slows all. `compiled` is ours with `train.compile=true`; `plain`
trains the very network that ours does; the networks of the others are of like size, and their
parameters and work are printed. Steps are timed from one call of the network to the next, so data,
optimiser and averaging are all inside.

Shapes: B batch, S side in pixels.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import (
    ProcessFailedError,
    count_gflop,
    make_denoising_trainer,
    make_imagen_trainer,
    make_pictures,
    peak_mib,
    print_result,
    results_apart,
)
from torch import Tensor, nn

EPILOG = """examples:
  python benchmarks/training.py
  python benchmarks/training.py --quick --only ours --only plain
  python benchmarks/training.py --data photos --images 512 --threads 2
"""
WARMUP_STEPS = 2
CHANNELS = (32, 64, 128)
MULTS = tuple(width // CHANNELS[0] for width in CHANNELS)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every loop is given."""

    data: str
    size_px: int
    batch_size: int
    steps: int
    threads: int
    bf16: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a loop tells of itself."""

    images_per_s: float
    cpu_s_per_image: float
    peak_mib: float
    parameters_m: float
    forward_gflop: float
    precision: str


class StepClock:
    """Notes the time at every call of a network."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def watch(self, network: nn.Module) -> None:
        network.register_forward_pre_hook(lambda *_: self.tick())

    def tick(self) -> None:
        self.wall_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())

    def per_step_s(self) -> tuple[float, float]:
        """Median wall and processor time between two calls, after the warm-up."""
        walls, cpus = (
            [b - a for a, b in pairwise(times)][WARMUP_STEPS:]
            for times in (self.wall_s, self.cpu_s)
        )
        return statistics.median(walls), statistics.median(cpus)


# ---- the loops ----------------------------------------------------------------------------------


def make_stage(size_px: int):
    """The stage that `ours` trains; its U-Net is the network of `plain`."""
    from cascade.contract import Contract
    from cascade.diffusion.process import NoiseProcess
    from cascade.diffusion.schedule import NoiseSchedule
    from cascade.diffusion_stage import DiffusionStage
    from cascade.space import Space

    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(Space(size_px=size_px)),
        NoiseProcess(NoiseSchedule("cosine"), prediction="v"),
        network_options={"channels": CHANNELS, "blocks": 1, "attention": (False, False, True)},
    )


def make_trainer(work: Work, out: Path, steps: int, *, compiled: bool = False):
    """Our trainer for so many steps, with nothing saved in between."""
    from cascade.data.sources import FolderSource
    from cascade.data.training_images import TrainingImages
    from cascade.training.settings import TrainingSettings
    from cascade.training.trainer import Trainer

    stage = make_stage(work.size_px)
    settings = TrainingSettings(
        images=work.batch_size * steps,
        batch_size=work.batch_size,
        precision="bf16" if work.bf16 else "fp32",
        compile=compiled,
        sample_every_images=0,
        checkpoint_every_images=work.batch_size * steps,
    )
    images = TrainingImages(FolderSource(Path(work.data)), stage.contract)
    return Trainer(stage, images, out, settings)


def train_ours(
    work: Work, clock: StepClock, out: Path, *, compiled: bool = False
) -> tuple[nn.Module, str]:
    """Our loop; a checkpoint is written at the end, after the last step that is timed."""
    trainer = make_trainer(work, out, _calls(work), compiled=compiled)
    network = trainer.state.stage.network
    clock.watch(network)
    trainer.run()
    network.backbone._compiled_call_impl = None  # or its work would not be counted
    return network.backbone, "bf16" if work.bf16 else "fp32"


def train_plain(work: Work, clock: StepClock, out: Path) -> tuple[nn.Module, str]:
    """The loop of diffusers' `train_unconditional.py`: accelerate, AdamW, EMAModel."""
    import torch.nn.functional as F
    from accelerate import Accelerator
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    accelerator = Accelerator(mixed_precision="bf16" if work.bf16 else "no", cpu=True)
    model = make_stage(work.size_px).network.backbone
    clock.watch(model)
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True)
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rate = get_scheduler("cosine", optimiser, num_warmup_steps=500, num_training_steps=10_000)
    loader = torch.utils.data.DataLoader(
        Pictures(work), batch_size=work.batch_size, shuffle=True, drop_last=True
    )
    model, optimiser, loader, rate = accelerator.prepare(model, optimiser, loader, rate)
    for _, x0 in zip(range(_calls(work)), cycle_loader(loader), strict=False):
        x0 = x0 * 2 - 1
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (x0.shape[0],))
        x_t = scheduler.add_noise(x0, noise, t)
        output = model(x_t, t, encoder_hidden_states=None).sample
        loss = F.mse_loss(output.float(), scheduler.get_velocity(x0, noise, t))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        optimiser.zero_grad()
        ema.step(model.parameters())
        loss.detach().item()
    return accelerator.unwrap_model(model), "bf16" if work.bf16 else "fp32"


def train_imagen(work: Work, clock: StepClock, out: Path) -> tuple[nn.Module, str]:
    """`ImagenTrainer` of imagen-pytorch, with one unconditional network."""
    unet_options = {
        "dim": CHANNELS[0],
        "dim_mults": MULTS,
        "num_resnet_blocks": 1,
        "layer_attns": (False, False, True),
    }
    imagen_options = {"image_sizes": work.size_px, "pred_objectives": "v", "timesteps": 1000}
    trainer = make_imagen_trainer(unet_options, imagen_options, bf16=work.bf16, on_cpu=True)
    trainer.add_train_dataset(Pictures(work), batch_size=work.batch_size, shuffle=True)
    unet = trainer.imagen.unets[0]  # Imagen makes its own copy
    clock.watch(unet.init_conv)  # Imagen calls `unet.forward`, which passes hooks by
    for _ in range(_calls(work)):
        trainer.train_step(unet_number=1)
    return unet, "bf16" if work.bf16 else "fp32"


def train_denoising(work: Work, clock: StepClock, out: Path) -> tuple[nn.Module, str]:
    """`Trainer` of denoising-diffusion-pytorch."""
    trainer = make_denoising_trainer(
        Path(work.data),
        {"dim": CHANNELS[0], "dim_mults": MULTS},
        {"image_size": work.size_px},
        batch_size=work.batch_size,
        steps=_calls(work),
        bf16=work.bf16,
        out=out,
    )
    unet = trainer.accelerator.unwrap_model(trainer.model).model
    clock.watch(unet)
    trainer.train()
    return unet, "bf16" if work.bf16 else "fp32"


LOOPS: dict[str, Callable[[Work, StepClock, Path], tuple[nn.Module, str]]] = {
    "ours": train_ours,
    "compiled": partial(train_ours, compiled=True),
    "plain": train_plain,
    "imagen": train_imagen,
    "denoising": train_denoising,
}


def _calls(work: Work) -> int:
    return WARMUP_STEPS + work.steps + 1  # the last call ends the last step


class Pictures(torch.utils.data.Dataset):
    """A folder's pictures, cut and mirrored as the others' examples do: (3, S, S) in [0, 1]."""

    def __init__(self, work: Work) -> None:
        self.size_px = work.size_px
        found = Path(work.data).rglob("*")
        self.files = sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.open(self.files[index]).convert("RGB")
        scale = self.size_px / min(picture.size)
        width, height = (max(self.size_px, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size_px) // 2, (height - self.size_px) // 2
        pixels = np.asarray(picture)[top : top + self.size_px, left : left + self.size_px]
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return tensor.flip(-1) if torch.rand(()) < 0.5 else tensor


def cycle_loader(loader):
    """Epoch after epoch, each in another order."""
    for _ in cycle([None]):
        yield from loader


# ---- one measurement, in a process of its own ---------------------------------------------------


def measure(name: str, work: Work) -> Result:
    """Train and tell; meant for a fresh interpreter."""
    torch.set_num_threads(work.threads)
    clock = StepClock()
    with tempfile.TemporaryDirectory() as out:
        network, precision = LOOPS[name](work, clock, Path(out) / "run")
    peak = peak_mib()
    wall_s, cpu_s = clock.per_step_s()
    return Result(
        images_per_s=work.batch_size / wall_s,
        cpu_s_per_image=cpu_s / work.batch_size,
        peak_mib=peak,
        parameters_m=sum(p.numel() for p in network.parameters()) / 1e6,
        forward_gflop=forward_gflop(network, work.size_px),
        precision=precision,
    )


def forward_gflop(network: nn.Module, size_px: int) -> float:
    """Work of a forward pass of one image, a multiplication and an addition counted as two."""
    x, t = torch.zeros(1, 3, size_px, size_px), torch.zeros(1)
    arguments = (x, t, None) if "UNet2DCondition" in type(network).__name__ else (x, t)
    return count_gflop(lambda: network(*arguments))


def measure_data_path(work: Work) -> float:
    """Images/s of `load_batches`, every picture decoded anew, without workers."""
    from cascade.contract import Contract
    from cascade.data.batches import PositionBatches, load_batches
    from cascade.data.sources import FolderSource
    from cascade.data.training_images import TrainingImages
    from cascade.space import Space

    source = FolderSource(Path(work.data))
    images = TrainingImages(source, Contract(Space(size_px=work.size_px)), cache_mib=0)
    count = max(1, 512 // work.batch_size) * work.batch_size
    start = time.perf_counter()
    for _ in load_batches(images, PositionBatches(0, count, work.batch_size)):
        pass
    return count / (time.perf_counter() - start)


def measure_resume(work: Work) -> tuple[float, float]:
    """Seconds from building the trainer to its first step: of a new run, and of one resumed."""
    torch.set_num_threads(work.threads)
    seconds = []
    with tempfile.TemporaryDirectory() as out:
        for steps in (2, 4):  # the second goes on where the first stopped
            clock, start = StepClock(), time.perf_counter()
            trainer = make_trainer(work, Path(out) / "run", steps)
            clock.watch(trainer.state.stage.network.backbone)
            trainer.run()
            seconds.append(clock.wall_s[0] - start)
            assert len(clock.wall_s) == 2, "the second run did not resume"
    return seconds[0], seconds[1]


# ---- comparing ----------------------------------------------------------------------------------


def run_apart(name: str, work: Work) -> Result | str:
    """Measure in a fresh interpreter; the last line of its error if it fails."""
    arguments = ["--measure", name, "--work", json.dumps(asdict(work))]
    try:
        (values,) = results_apart(__file__, arguments, work.threads)
    except ProcessFailedError as error:
        return str(error)
    return Result(**values)


def table(results: dict[str, list[Result]]) -> list[str]:
    """Lines with the medians of each loop, and how much faster ours is in the same round."""
    lines = [
        f"{'loop':<10} {'images/s':>9} {'ours is':>8} {'cpu ms/image':>13} {'ours is':>8} "
        f"{'peak MiB':>9} {'M params':>9} {'GFLOP/image':>12} precision"
    ]
    for name, rounds in results.items():
        ours = results.get("ours", [])
        wall = [a.images_per_s / b.images_per_s for a, b in zip(ours, rounds, strict=False)]
        cpu = [b.cpu_s_per_image / a.cpu_s_per_image for a, b in zip(ours, rounds, strict=False)]
        of = {
            key: statistics.median(getattr(each, key) for each in rounds)
            for key in ("images_per_s", "cpu_s_per_image", "peak_mib")
        }
        lines.append(
            f"{name:<10} {of['images_per_s']:>9.2f} {_times(wall):>8} "
            f"{of['cpu_s_per_image'] * 1e3:>13.1f} {_times(cpu):>8} {of['peak_mib']:>9.0f} "
            f"{rounds[0].parameters_m:>9.2f} {rounds[0].forward_gflop:>12.2f} "
            f"{rounds[0].precision}"
        )
    return lines


def _times(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}x" if ratios else "-"


def compare(names: Sequence[str], work: Work, rounds: int) -> dict[str, list[Result]]:
    """Take turns A B C A B C; a loop that fails is named and left out."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in list(results):
            result = run_apart(name, work)
            if isinstance(result, str):
                print(f"{name}: left out ({result})", flush=True)
                del results[name]
            else:
                results[name].append(result)
    return results


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one round of 2 steps of 16 images")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--images", type=int, default=320, help="timed in each round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--data", help="folder of images (default: synthetic ones)")
    parser.add_argument("--only", action="append", choices=LOOPS, help="may be given again")
    parser.add_argument("--fp32", action="store_true", help="do not use bf16 anywhere")
    parser.add_argument("--skip-rest", action="store_true", help="neither data path nor resuming")
    parser.add_argument("--measure", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.images, given.batch_size, given.rounds = 32, 16, 1
    return given


def main() -> None:
    """Parse the command line, compare the loops, then measure data path and resuming."""
    given = parse_arguments()
    if given.measure:
        result = measure(given.measure, Work(**json.loads(given.work)))
        print_result(asdict(result))
        return
    from cascade.devices import uses_bf16

    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            data=given.data or folder,
            size_px=given.size_px,
            batch_size=given.batch_size,
            steps=max(1, given.images // given.batch_size),
            threads=given.threads,
            bf16=not given.fp32 and uses_bf16(torch.device("cpu"), "auto"),
        )
        if not given.data:
            make_pictures(Path(folder), 256, given.size_px)
        print(
            f"{os.cpu_count()} CPUs, {work.threads} threads, torch {torch.__version__}, "
            f"{work.size_px} px, batches of {work.batch_size}, {work.steps} steps, "
            f"{given.rounds} rounds",
            flush=True,
        )
        results = compare(given.only or list(LOOPS), work, given.rounds)
        print("\n".join(table(results)), flush=True)
        if not given.skip_rest:
            _print_rest(work, results.get("ours", []))


def _print_rest(work: Work, ours: Sequence[Result]) -> None:
    data = measure_data_path(work)
    eaten = statistics.median(each.images_per_s for each in ours) if ours else None
    times = f", {data / eaten:.0f}x what our loop uses" if eaten else ""
    print(f"data path alone, every image decoded anew: {data:.0f} images/s{times}")
    fresh_s, resumed_s = measure_resume(replace(work, steps=1))
    print(
        f"from building the trainer to the first step: new run {fresh_s:.2f} s, resumed "
        f"{resumed_s:.2f} s, so resuming costs {resumed_s - fresh_s:.2f} s"
    )


if __name__ == "__main__":
    main()
