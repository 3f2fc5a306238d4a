"""A trial walk of a scheduler over images that are known, before any network is called.

For known images, the best denoiser is known too. With it, every state of a walk must hold them as
noisy as the stage's noise schedule says, whatever the scheduler computes and remembers.

Shapes: (1, 1, 3, PIXELS), one row for each kind of image: a white one, a grey one, and one whose
pixels are N(0, SPREAD^2), each on its own.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.sampler import Sampler, batch_of
from cascade.sampling.thresholding import Thresholding

PIXELS = 1 << 12
SPREAD = 0.5
TOLERANCE = 0.11  # of alpha and sigma: some schedulers draw noise, or approximate between timesteps
LEAST_CONTRAST = 0.5  # of what ddim leaves in as many steps, where images begin as noise alone
MOST_CONTRAST = 1.2
_passed: set[tuple[str, int, str, bytes]] = set()


def check_scheduler(sampler: Sampler, name: str) -> None:
    """Walk once, and check every noise level on the way and the images at the end.

    Args:
        sampler: a sampler that has taken no step; a copy of it walks.
        name: class name of its scheduler.

    Raises:
        ContractError: if the walk does not start at noise, has other noise levels than the stage's,
            fails, or ends with much more or less contrast than the images have.
    """
    schedule, first = sampler.process.schedule, sampler.timesteps[0]
    is_free = sampler.process.residual is None  # else a conditioning image gives the contrast
    facts = f"{sampler.options}, {is_free}"
    key = (name, sampler.steps, facts, schedule.alpha_bar.numpy().tobytes())
    if key in _passed:
        return
    if first < schedule.train_steps / 2:
        raise ContractError(
            f"diffusers' {name} starts at timestep {first} of {schedule.train_steps}, where images "
            "are not noise yet; use another sampler, such as ddim."
        )
    trial = copy.deepcopy(sampler)
    trial.process, trial.thresholding = NoiseProcess(schedule), Thresholding("none")
    contrast = _contrast(trial, name)
    usual = _contrast(DDIM(trial.process, sampler.steps, trial.thresholding), "DDIM")
    if not (LEAST_CONTRAST * usual if is_free else 0) <= contrast <= MOST_CONTRAST:
        raise ContractError(
            f"diffusers' {name} would make images with {contrast:.0%} of their contrast in "
            f"{sampler.steps} steps (ddim: {usual:.0%}); use more steps, other settings of the "
            "scheduler, or the sampler ode."
        )
    _passed.add(key)


def _contrast(trial: Sampler, name: str) -> float:
    """Walk, and measure the contrast of the last images: 1 for a perfect walk."""
    schedule, noise = trial.process.schedule, SeededNoise([0])
    known = torch.tensor([1.0, 0.0, 0.0]).view(3, 1).expand(1, 1, 3, PIXELS)
    first = batch_of(trial.timesteps[0], known)
    state = trial.start(schedule.add_noise(known, _draws(noise), first))
    for index, t in enumerate(trial.timesteps):
        x_t = trial.network_input(state, index)
        _check_level(x_t, schedule, t, f"diffusers' {name} in step {index + 1}")
        state, _ = trial.step(_best_v(trial.process, known, x_t, t), state, index, noise)
    return float(state[..., 2, :].std()) / SPREAD


def _draws(noise: SeededNoise) -> Tensor:
    """Noise whose mean is 0 and whose standard deviation is 1 in each row, but for rounding."""
    draws = noise.normal(1, 3, PIXELS)
    return (draws - draws.mean(-1, keepdim=True)) / draws.std(-1, keepdim=True)


def _best_v(process: NoiseProcess, known: Tensor, x_t: Tensor, timestep: int) -> Tensor:
    """What a perfect network predicts for the three images."""
    t = batch_of(timestep, x_t)
    alpha, sigma = process.schedule.alpha_sigma(t)
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    x0 = torch.cat([known[..., :2, :], gain * x_t[..., 2:, :]], dim=-2)
    return process.target(x0, process.eps(x0, x_t, t), t)


def _check_level(x_t: Tensor, schedule: NoiseSchedule, timestep: int, where: str) -> None:
    """Check how noisy the images are; they may be up to one timestep away from theirs."""
    last = schedule.train_steps - 1
    near = torch.tensor([max(timestep - 1, 0), timestep, min(timestep + 1, last)])
    white, grey = x_t[0, 0, 0], x_t[0, 0, 1]
    levels = {"image": (white - grey).mean(), "noise": grey.std()}
    for (what, level), scale in zip(levels.items(), schedule.alpha_sigma(near), strict=True):
        if not scale.min() - TOLERANCE <= level <= scale.max() + TOLERANCE:
            raise ContractError(
                f"{where}, at timestep {timestep}, scales the {what} by {float(level):.2f}, and "
                f"the stage's noise schedule by {float(scale[1]):.2f}; use other settings of the "
                "scheduler, or another sampler, such as ode."
            )
