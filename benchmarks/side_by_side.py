"""What the benchmarks that set our trainer beside others' share.

Fresh interpreters, memory and work, made-up images, and the trainers of the others.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULT = "RESULT "


# ---- a process of its own -----------------------------------------------------------------------


class ProcessFailedError(Exception):
    """A process ended with an error; the message is the last line of what it said."""


def print_result(values: dict[str, Any]) -> None:
    """Hand values to the process that started this one, whatever libraries print around them."""
    print(f"\n{RESULT}{json.dumps(values)}", flush=True)


def results_apart(
    script: str, arguments: Sequence[str], threads: int, **environment: str
) -> Iterator[dict[str, Any]]:
    """Run a script in a fresh interpreter and give what it hands over, as it comes.

    Raises:
        ProcessFailedError: if it fails.
    """
    command = [sys.executable, script, *arguments]
    variables = {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", **environment}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | variables,
    )
    last = "no message"
    assert process.stdout is not None
    with process:
        try:
            for line in process.stdout:
                if line.startswith(RESULT):
                    yield json.loads(line.removeprefix(RESULT))
                else:
                    last = line.strip() or last
        except KeyboardInterrupt:
            _stop(process)
            raise
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ProcessFailedError(last)


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a process to stop, and wait while a training saves itself; a second Ctrl-C kills it."""
    process.terminate()  # Ctrl-C in a terminal reaches it by itself, but kill does not
    try:
        process.communicate()
    except BaseException:
        process.kill()
        raise


def peak_mib() -> float:
    """The most main memory that this process has had at once.

    Linux's `ru_maxrss` begins with what the starting process had, so that it is not asked there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 2**10
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def count_gflop(work: Callable[[], Any]) -> float:
    """Work of a call, a multiplication and an addition counted as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    as_products = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with as_products, torch.no_grad(), FlopCounterMode(display=False) as counter:  # or it counts 0
        work()
    return counter.get_total_flops() / 1e9


def make_pictures(folder: Path, count: int, size_px: int) -> None:
    """JPEGs with smooth areas, edges and grain, twice the size that is trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    side = size_px * 2
    for index in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        pixels[side // 3 : side // 2, side // 4 :] = random.integers(0, 256, 3)
        pixels = pixels + random.normal(0, 6, pixels.shape)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index:05d}.jpg", quality=90)


# ---- the trainers of the others -----------------------------------------------------------------


def make_imagen_trainer(
    unet_options: dict[str, Any], imagen_options: dict[str, Any], *, bf16: bool, on_cpu: bool
) -> Any:
    """`ImagenTrainer` of imagen-pytorch, without text.

    Args:
        unet_options: of its `Unet`; with `lowres_cond` an upsampler, whose base is a placeholder.
        imagen_options: of its `Imagen`.
        bf16: whether to train in bfloat16.
        on_cpu: whether to leave accelerators alone.
    """
    import transformers

    # Its module fetches a text encoder's configuration when imported; no text is used here.
    transformers.T5Config.from_pretrained = lambda *_, **__: transformers.T5Config(d_model=768)
    from imagen_pytorch import Imagen, ImagenTrainer, NullUnet, Unet

    unet = Unet(layer_cross_attns=False, cond_on_text=False, **unet_options)
    unets = (NullUnet(), unet) if unet_options.get("lowres_cond") else (unet,)
    return ImagenTrainer(
        Imagen(unets, condition_on_text=False, **imagen_options),
        precision="bf16" if bf16 else "no",
        max_grad_norm=1.0,
        verbose=False,
        accelerate_cpu=on_cpu,
    )


def make_denoising_trainer(
    folder: Path,
    unet_options: dict[str, Any],
    diffusion_options: dict[str, Any],
    *,
    batch_size: int,
    steps: int,
    bf16: bool,
    out: Path,
) -> Any:
    """`Trainer` of denoising-diffusion-pytorch, with its defaults.

    Args:
        folder: of pictures, at least 100.
        unet_options: of its `Unet`.
        diffusion_options: of its `GaussianDiffusion`.
        batch_size: at least 16.
        steps: to train.
        bf16: whether to train in bfloat16.
        out: folder of the run.
    """
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet

    return Trainer(
        GaussianDiffusion(Unet(flash_attn=True, **unet_options), **diffusion_options),
        str(folder),
        train_batch_size=batch_size,
        train_num_steps=steps,
        amp=bf16,
        mixed_precision_type="bf16",
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=str(out),
    )
