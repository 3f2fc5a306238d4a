"""Noise schedules: how much of the image is left at each training timestep.

Linear betas come from DDPM (Ho et al. 2020, arXiv 2006.11239), cosine betas from Nichol & Dhariwal
2021 (arXiv 2102.09672, eq. 17), the resolution shift from simple diffusion (Hoogeboom et al. 2023,
arXiv 2301.11093, section 3.1), the zero terminal SNR from Lin et al. 2023 (arXiv 2305.08891,
algorithm 1). Tables are float64 and cast when used: in float32, 1 - alpha_bar of the first
timesteps would be right to three digits only.

Shapes: T training timesteps, B batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cascade.arguments import flag, real_number, shown, whole_number
from cascade.errors import ContractError, RecipeError

ScheduleKind = Literal["cosine", "linear", "betas"]
LARGEST_BETA = 0.999


class NoiseSchedule:
    """The table of alpha_bar, where x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps.

    Args:
        kind: `cosine` or `linear`; `betas` for a table of one's own.
        train_steps: number T of training timesteps, at least 2.
        shift: factor of sqrt(SNR) at every timestep, above 0: reference size / image size, so below
            1 for larger images, which need more noise. 1 leaves the schedule unchanged.
        zero_terminal_snr: whether to rescale the table so that the last timestep is pure noise.
        betas: for the kind `betas`: the T variances of the forward process, in (0, 1].

    Raises:
        RecipeError: for an unknown kind, or a value out of range.
        ContractError: for a value that is no number.
    """

    def __init__(
        self,
        kind: ScheduleKind = "cosine",
        *,
        train_steps: int = 1000,
        shift: float = 1.0,
        zero_terminal_snr: bool = False,
        betas: Sequence[float] | None = None,
    ) -> None:
        if kind not in get_args(ScheduleKind):
            raise RecipeError(f"schedule must be one of {get_args(ScheduleKind)}, got {kind!r}.")
        train_steps, shift = whole_number("train_steps", train_steps), real_number("shift", shift)
        zero_terminal_snr = flag("zero_terminal_snr", zero_terminal_snr)
        if train_steps < 2 or not 0 < shift < math.inf:
            raise RecipeError(
                f"a schedule needs train_steps >= 2 and shift > 0, got {train_steps} and {shift}."
            )
        own_betas = _numbers(betas)
        own = torch.tensor(own_betas, dtype=torch.float64)
        needed = train_steps if kind == "betas" else 0
        if len(own) != needed or not ((own > 0) & (own <= 1)).all():
            raise RecipeError(
                f"schedule {kind!r} with {train_steps} train_steps needs {needed} betas in (0, 1], "
                f"got {len(own)}."
            )
        self.kind: ScheduleKind = kind
        self.train_steps = train_steps
        self.shift = shift
        self.zero_terminal_snr = zero_terminal_snr
        alpha_bar = torch.cumprod(1 - (own if own_betas else _betas(kind, train_steps)), dim=0)
        if shift != 1:
            alpha_bar = torch.sigmoid(torch.logit(alpha_bar) + 2 * math.log(shift))
        if zero_terminal_snr:
            alpha_bar = _rescale_to_zero_terminal_snr(alpha_bar)
        self.alpha_bar = alpha_bar  # (T,) float64
        self._own_betas = own_betas
        self._tables: dict[tuple[str, torch.device], Tensor] = {}

    @property
    def betas(self) -> Tensor:
        """The forward process's variances: (T,) float64, in (0, 1]."""
        previous = torch.cat([torch.ones(1, dtype=torch.float64), self.alpha_bar[:-1]])
        return 1 - self.alpha_bar / previous

    @property
    def log_alpha_sigma(self) -> Tensor:
        """log(alpha / sigma), half the log-SNR: (T,) float64, falling; -inf where SNR is 0."""
        return 0.5 * (self.alpha_bar.log() - torch.log1p(-self.alpha_bar))

    def alpha_bar_at(self, t: int) -> float:
        """alpha_bar of one timestep; 1 for t = -1, which stands for the clean image."""
        return 1.0 if t < 0 else float(self.alpha_bar[t])

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of image and noise.

        Args:
            t: (B,) timesteps in [0, T).

        Returns:
            alpha and sigma, each (B, 1, 1, 1) float32, alpha^2 + sigma^2 = 1.
        """
        return self._at("alpha", t), self._at("sigma", t)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha^2 / sigma^2 of timesteps t (B,): (B, 1, 1, 1) float32."""
        return self._at("snr", t)

    def _at(self, name: str, t: Tensor) -> Tensor:
        """A float32 table, computed in float64 on the CPU and kept on each device, at t (B,)."""
        if (name, t.device) not in self._tables:
            table = {
                "alpha": self.alpha_bar.sqrt(),
                "sigma": (1 - self.alpha_bar).sqrt(),
                "snr": self.alpha_bar / (1 - self.alpha_bar),
            }[name]
            self._tables[name, t.device] = table.float().to(t.device)
        return self._tables[name, t.device][t].view(-1, 1, 1, 1)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of q(x_t | x0) with noise eps (DDPM, eq. 4); images (B, C, H, W), t (B,)."""
        alpha, sigma = self.alpha_sigma(t)
        return alpha * x0 + sigma * eps

    def sampling_timesteps(self, steps: int, timestep_shift: float = 1.0) -> list[int]:
        """The timesteps to visit: falling from T - 1, evenly spaced (`trailing`) or shifted.

        Sampling starts from pure noise, so the first timestep must be the noisiest one. A shift s
        moves the place u in (0, 1] of a timestep to s u / (1 + (s - 1) u), as in Stable Diffusion 3
        (Esser et al. 2024, arXiv 2403.03206, eq. 23).

        Args:
            steps: number of timesteps, from 1 to T.
            timestep_shift: from 0.001 to 1000; above 1, more timesteps lie at high noise, and below
                1, at low noise.

        Returns:
            Exactly `steps` different timesteps, the first T - 1.

        Raises:
            ContractError: if `steps` is out of range.
        """
        if not 1 <= steps <= self.train_steps:
            raise ContractError(
                f"steps must be from 1 to {self.train_steps}, the schedule's length; got {steps}."
            )
        timesteps = []
        above = self.train_steps
        for left in range(steps, 0, -1):  # u = left / steps
            whole = (steps - left) + timestep_shift * left
            place = round(self.train_steps * timestep_shift * left / whole)
            above = min(max(place, left), above)
            timesteps.append(above - 1)
            above -= 1
        return timesteps

    def refined_timesteps(self, steps: int) -> list[int]:
        """The timesteps for solvers of the flow: from T - 1 to 0, closer together at low noise.

        The distance from 0 falls with the square of what is left of the walk. The flow bends most
        at low noise, and a solver of second order only gains if it resolves that part.

        Args:
            steps: number of timesteps, from 1 to T.

        Returns:
            Exactly `steps` different timesteps, the first T - 1.

        Raises:
            ContractError: if `steps` is out of range.
        """
        last = len(self.sampling_timesteps(steps)) - 1
        places = range(last, -1, -1)
        if last == 0:
            return [self.train_steps - 1]
        return [max(round((self.train_steps - 1) * (i / last) ** 2), i) for i in places]

    def config(self) -> dict[str, Any]:
        """The keyword arguments that make the same schedule."""
        config = {
            "kind": self.kind,
            "train_steps": self.train_steps,
            "shift": self.shift,
            "zero_terminal_snr": self.zero_terminal_snr,
        }
        return {**config, "betas": self._own_betas} if self._own_betas else config

    def diffusers_config(self) -> dict[str, Any]:
        """The configuration with which a scheduler of diffusers builds the same table."""
        config: dict[str, Any] = {"num_train_timesteps": self.train_steps}
        scale = 1000 / self.train_steps if self.kind == "linear" else 1
        if (
            self.shift == 1 and self.kind != "betas" and 0.02 * scale <= LARGEST_BETA
        ):  # diffusers does not clip linear betas
            name = {"cosine": "squaredcos_cap_v2", "linear": "linear"}[self.kind]
            config |= {"beta_schedule": name, "beta_start": 1e-4 * scale, "beta_end": 0.02 * scale}
        else:
            config["trained_betas"] = self.betas.tolist()
        if self.zero_terminal_snr:
            config["rescale_betas_zero_snr"] = True
        return config

    def __repr__(self) -> str:
        return (
            f"NoiseSchedule({self.kind!r}, train_steps={self.train_steps}, shift={self.shift}, "
            f"zero_terminal_snr={self.zero_terminal_snr})"
        )


def _numbers(betas: Sequence[float] | None) -> list[float]:
    try:
        return [] if betas is None else [float(each) for each in betas]
    except (TypeError, ValueError):
        raise ContractError(f"betas must be a list of numbers, got {shown(betas)}.") from None


def _betas(kind: ScheduleKind, train_steps: int) -> Tensor:
    if kind == "linear":
        scale = 1000 / train_steps  # keeps the end point of DDPM's 1000 steps for any T
        return torch.linspace(1e-4 * scale, 0.02 * scale, train_steps, dtype=torch.float64).clamp(
            max=LARGEST_BETA
        )
    time = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
    alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA)


def _rescale_to_zero_terminal_snr(alpha_bar: Tensor) -> Tensor:
    root = alpha_bar.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    rescaled = ((root - last) * first / (first - last)) ** 2
    rescaled[-1] = 0.0
    return rescaled
