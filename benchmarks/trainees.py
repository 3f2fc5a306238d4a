"""What `peers.py` trains: ours, imagen-pytorch and denoising-diffusion-pytorch, by the clock.

Each can train until it has used so much time, and draw images in between. The peers are given
images by our loader, so that all see the same ones, decoded, resized and mirrored alike, and
kept in memory.

Shapes: B batch, S side in pixels, s side of the small image.
"""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from side_by_side import make_denoising_trainer, make_imagen_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cascade.building.training import build_trainer
from cascade.conditioning.inputs import Inputs
from cascade.data.training_images import TrainingImages
from cascade.devices import Precision, autocast, best_device, uses_bf16
from cascade.imaging.writing import save_png, to_pil
from cascade.recipe.sections import StageRecipe
from cascade.resizing import resize
from cascade.saving.atomic import atomic_file
from cascade.stage import Run
from cascade.training.trainer import Trainer

MANY_IMAGES = 10**9
RECENT_STEPS = 30
SAMPLE_SEED = 1
FEWEST_IN_FOLDER = 100  # of denoising-diffusion-pytorch


# ---- time ---------------------------------------------------------------------------------------


def cpu_s() -> float:
    """Processor time of this process and of those that it has waited for, such as compilers."""
    return sum(os.times()[:4])


@final
class Clock:
    """Counts time while training, and stands still while pictures are drawn and measured.

    It counts processor time, since others may use the machine too; with an accelerator, wall time.
    """

    def __init__(self) -> None:
        self._read = cpu_s if best_device().type == "cpu" else time.perf_counter
        self._used_s = self._used_wall_s = 0.0
        self._since: tuple[float, float] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self._since = self._read(), time.perf_counter()
        try:
            yield
        finally:
            self._used_wall_s += time.perf_counter() - self._since[1]
            self._used_s, self._since = self.used_s(), None

    def used_s(self) -> float:
        return self._used_s + (self._read() - self._since[0] if self._since else 0.0)

    def used_wall_s(self) -> float:
        """Until the clock was last stopped."""
        return self._used_wall_s


# ---- pictures -----------------------------------------------------------------------------------


@final
class Pictures(Dataset[Tensor]):
    """Our training pictures as the peers want them, epoch after epoch: (3, S, S) in [0, 1]."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return MANY_IMAGES

    def __getitem__(self, position: int) -> Tensor:
        return (self.images[position].image + 1) / 2


def small_pictures(images: Tensor, size_px: int, clamp_range: Any = None, **_: Any) -> Tensor:
    """Pictures in [0, 1] at another size by antialiased bicubic, called as imagen-pytorch does."""
    if images.shape[-1] == size_px:
        return images
    return resize(images, (size_px, size_px), "bicubic").clamp(0, 1)


# ---- the three ----------------------------------------------------------------------------------


class Trainee(ABC):
    """A network in training.

    Attributes:
        batch_size: pictures per step.
        losses: the last ones, each method's own.
    """

    batch_size: int

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.losses: deque[float] = deque(maxlen=RECENT_STEPS)

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What is trained."""

    @abstractmethod
    def images_seen(self) -> int:
        """Pictures that it was trained on."""

    @abstractmethod
    def train(self, until_s: float) -> None:
        """Train until the clock says so."""

    @abstractmethod
    def draw(
        self,
        count: int,
        low_res: Tensor | None,
        *,
        averaged: bool,
        precision: Precision = "auto",
    ) -> Tensor:
        """Draw pictures, the same noise every time.

        Args:
            count: B.
            low_res: (B, 3, s, s) in [-1, 1] for an upsampler.
            averaged: with averaged weights, or with those of the last step.
            precision: `auto` is that of the training.

        Returns:
            (B, 3, S, S) in [-1, 1].
        """

    def loss(self) -> float:
        """Mean of the last losses."""
        return fmean(self.losses) if self.losses else float("nan")


@final
class TimedRun:
    """A training that a clock ends.

    How many images the time allows is not known before, so that the end of the run, from which
    the learning rate falls to 0, is foretold anew at every step by the speed of the last ones.

    Args:
        trainer: of a run whose recipe went through `timed`.
        clock: that is to run while training.
        budget_s: at which training ends.
    """

    def __init__(self, trainer: Trainer, clock: Clock, budget_s: float) -> None:
        self.trainer, self.clock = trainer, clock
        self.losses: deque[float] = deque(maxlen=RECENT_STEPS)
        self._budget_s, self._until_s = budget_s, 0.0
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT_STEPS)
        trainer.model.register_forward_pre_hook(lambda *_: self._before_step())

    def train(self, until_s: float) -> None:
        """Train until the clock says so, or the run is stopped."""
        self._until_s = until_s
        self.trainer.stop_requested = False
        self._steps.clear()
        self._end_at(MANY_IMAGES)  # no batch may be missing if what was foretold is too low
        with self.clock.running():
            self.trainer.run()

    def loss(self) -> float:
        """Mean of the last losses."""
        return fmean(self.losses) if self.losses else float("nan")

    def _before_step(self) -> None:
        used_s, seen = self.clock.used_s(), self.trainer.state.images_seen
        self._steps.append((used_s, seen))
        self.losses.extend(self.trainer.state.recent_losses[-1:])  # none after each line of the log
        if used_s >= self._until_s:
            self.trainer.stop_requested = True
        first_s, first = self._steps[0]
        if seen > first:
            left = (self._budget_s - used_s) * (seen - first) / (used_s - first_s)
            self._end_at(seen + max(round(left), self.trainer.settings.batch_size))

    def _end_at(self, images: int) -> None:
        self.trainer.settings = replace(self.trainer.settings, images=images)


@final
class Ours(Trainee):
    """A bundled recipe.

    Args:
        recipe: with the data.
        clock: that is to run while training.
        budget_s: at which training ends.
        steps: of sampling.
        out: folder of the run.
    """

    def __init__(
        self, recipe: StageRecipe, clock: Clock, *, budget_s: float, steps: int, out: Path
    ) -> None:
        super().__init__(clock)
        self.trainer = build_trainer(timed(recipe), out)
        self.batch_size = recipe.train.batch_size
        self._run = TimedRun(self.trainer, clock, budget_s)
        self.losses = self._run.losses
        self._settings = self.trainer.averaged.stage.sampling.changed(steps=steps)

    @property
    def network(self) -> nn.Module:
        return self.trainer.averaged.stage

    def images_seen(self) -> int:
        return self.trainer.state.images_seen

    def train(self, until_s: float) -> None:
        self._run.train(until_s)

    def draw(
        self,
        count: int,
        low_res: Tensor | None,
        *,
        averaged: bool,
        precision: Precision = "auto",
    ) -> Tensor:
        stage, state = self.trainer.averaged.stage, self.trainer.state
        if averaged:
            state.ema.copy_to(stage.parameters())
        else:
            stage.load_state_dict(state.stage.state_dict())
        run = Run(settings=self._settings, precision=precision)
        inputs = Inputs({"image": low_res})
        parts = torch.arange(count).split(draw_together(stage.space.longer_px))
        pictures = [
            stage.run(part.tolist(), inputs.part(slice(part[0], part[-1] + 1)), run=run).cpu()
            for part in parts
        ]
        return torch.cat(pictures)


def timed(recipe: StageRecipe) -> StageRecipe:
    """The recipe without labels, which the peers cannot take, for a run that a clock ends."""
    values = recipe.model_dump()
    values["condition"]["labels"] = None
    values["data"] |= {"validation": None, "validation_pairs": None, "split_by": None}
    if recipe.autoencoding is None:
        values["sampling"]["guidance"] = 1.0
    values["train"] |= {
        "images": MANY_IMAGES,
        "checkpoint_every_images": MANY_IMAGES,
        "sample_every_images": 0,
        "trackers": [],
    }
    return StageRecipe.model_validate(values)


class Peer(Trainee):
    """A peer, which is trained step by step."""

    def __init__(self, clock: Clock, batch_size: int) -> None:
        super().__init__(clock)
        self.batch_size = batch_size
        self._images_seen = 0

    def images_seen(self) -> int:
        return self._images_seen

    def train(self, until_s: float) -> None:
        with self.clock.running(), redirect_stdout(sys.stderr):
            while self.clock.used_s() < until_s:
                self._step()
                self._images_seen += self.batch_size

    def save(self, path: Path) -> None:
        """Keep the weights, averaged and last."""
        tensors = {
            f"{weights}.{name}": value.contiguous()
            for weights, network in self._networks().items()
            for name, value in network.state_dict().items()
        }
        with atomic_file(path) as temporary:
            save_file(tensors, temporary)

    def load(self, path: Path) -> None:
        """Take over the weights that were kept."""
        tensors = load_file(path)
        for weights, network in self._networks().items():
            prefix = f"{weights}."
            network.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )

    @abstractmethod
    def _networks(self) -> dict[str, nn.Module]:
        """With `averaged` weights and with the `last` ones."""

    @abstractmethod
    def _step(self) -> None:
        """Learn from one batch."""

    def draw(
        self,
        count: int,
        low_res: Tensor | None,
        *,
        averaged: bool,
        precision: Precision = "auto",
    ) -> Tensor:
        devices = [best_device()] if best_device().type == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            redirect_stdout(sys.stderr),
            torch.no_grad(),
            autocast(best_device(), precision),
        ):
            torch.manual_seed(SAMPLE_SEED)
            parts = [
                self._draw(
                    len(part), None if low_res is None else (low_res[part] + 1) / 2, averaged
                )
                for part in torch.arange(count).split(draw_together(self._size_px))
            ]
        return torch.cat(parts).float().cpu().clamp(0, 1) * 2 - 1

    _size_px: int

    @abstractmethod
    def _draw(self, count: int, low_res: Tensor | None, averaged: bool) -> Tensor:
        """Pictures (B, 3, S, S) in [0, 1] from small ones in [0, 1]."""


@final
class ImagenPytorch(Peer):
    """imagen-pytorch, as its README's unconditional example, with its trainer's defaults.

    A base predicts noise, the default; an upsampler v, against the shift of colours that its
    code names, on crops, without attention, and with the memory-efficient network that it has
    for upsamplers. It makes its small pictures with our kernel instead of `nearest`, its default,
    since with that it would be given others in the end than it was trained on; and it draws
    without noise on them, since they are real ones.
    """

    def __init__(
        self, images: TrainingImages, clock: Clock, *, batch_size: int, steps: int, low_res_px: int
    ) -> None:
        super().__init__(clock, batch_size)
        device, self._size_px = best_device(), images.contract.space.longer_px
        self._number, unet, imagen = 1, {"dim": 32, "dim_mults": (1, 2, 4, 8)}, {}
        if low_res_px:
            self._number = 2
            unet = {
                "dim": 32,
                "dim_mults": (1, 2, 4),
                "layer_attns": False,
                "attend_at_middle": False,
                "lowres_cond": True,
                "memory_efficient": True,
            }
            imagen = {
                "image_sizes": (low_res_px, self._size_px),
                "random_crop_sizes": (None, self._size_px // 2),
                "pred_objectives": "v",
                "lowres_sample_noise_level": 0.0,
            }
        else:
            unet["layer_attns"] = (False, False, False, True)
            imagen["image_sizes"] = self._size_px
        torch.manual_seed(0)
        self.trainer = make_imagen_trainer(
            unet,
            imagen | {"timesteps": steps},
            bf16=uses_bf16(device, "auto"),
            on_cpu=device.type == "cpu",
        )
        self.trainer.imagen.resize_to = small_pictures
        self.trainer.add_train_dataset(Pictures(images), batch_size=batch_size)

    @property
    def network(self) -> nn.Module:
        return self.trainer.imagen.unets[-1]

    def _networks(self) -> dict[str, nn.Module]:
        return {"averaged": self.trainer.ema_unets[-1].ema_model, "last": self.network}

    def _step(self) -> None:
        self.losses.append(self.trainer.train_step(unet_number=self._number))

    def _draw(self, count: int, low_res: Tensor | None, averaged: bool) -> Tensor:
        given: dict[str, Any] = {}
        if low_res is not None:
            given = {"start_image_or_video": low_res.to(best_device()), "start_at_unet_number": 2}
        return self.trainer.sample(
            batch_size=count, use_non_ema=not averaged, use_tqdm=False, **given
        )


@final
class DenoisingDiffusionPytorch(Peer):
    """denoising-diffusion-pytorch, with the defaults of its trainer, and DDIM."""

    def __init__(
        self, images: TrainingImages, clock: Clock, *, batch_size: int, steps: int, out: Path
    ) -> None:
        super().__init__(clock, batch_size)
        self._size_px = images.contract.space.longer_px
        pictures = Pictures(images)
        for index in range(FEWEST_IN_FOLDER):  # its trainer asks for them; its loader is not used
            picture = to_pil(pictures[index % len(images.source)][None] * 2 - 1)[0]
            save_png(picture, out / "pictures" / f"{index}.png")
        torch.manual_seed(0)
        self.trainer = make_denoising_trainer(
            out / "pictures",
            {"dim": 32, "dim_mults": (1, 2, 4, 8)},
            {"image_size": self._size_px, "sampling_timesteps": steps},
            batch_size=batch_size,
            steps=0,
            bf16=uses_bf16(best_device(), "auto"),
            out=out / "results",
        )
        self.trainer.dl = iter(DataLoader(pictures, batch_size=batch_size))
        self.trainer.model.register_forward_hook(
            lambda _module, _given, loss: self.losses.append(float(loss))
        )

    @property
    def network(self) -> nn.Module:
        return self.trainer.ema.ema_model.model

    def _networks(self) -> dict[str, nn.Module]:
        last = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return {"averaged": self.trainer.ema.ema_model, "last": last}

    def _step(self) -> None:
        self.trainer.train_num_steps = self.trainer.step + 1
        self.trainer.train()

    def _draw(self, count: int, low_res: Tensor | None, averaged: bool) -> Tensor:
        diffusion: Any = self._networks()["averaged" if averaged else "last"].eval()
        return diffusion.sample(batch_size=count)


def draw_together(size_px: int) -> int:
    """Pictures to draw at once, which memory bears."""
    return max(1, 64 * 64**2 // size_px**2)
