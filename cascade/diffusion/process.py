"""The noise process of a stage: what the network predicts, at which timesteps, and its loss.

Predictions: eps (DDPM, arXiv 2006.11239), x0, and v = alpha eps - sigma x0 (Salimans & Ho 2022,
arXiv 2202.00512). Weights: min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556) and the clipped
velocity loss of Li & He 2025 (arXiv 2511.13720). Learned variances: Nichol & Dhariwal 2021.

Shapes: B batch, C channels, H and W pixels, T training timesteps.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cascade.arguments import flag, real_number
from cascade.diffusion.residual import Residual
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import RecipeError

Prediction = Literal["eps", "x0", "v"]
Weighting = Literal["uniform", "min_snr", "velocity", "residual"]
TimestepDraw = Literal["uniform", "logit_normal", "last"]
SMALLEST_VELOCITY_SIGMA = 0.05
RELIABLE_STDS = 4.0  # where the x0 of emoji-1024/base is nearest to the truth; lower, it is worse


class NoiseProcess:
    """Turns images into training pairs, and predictions back into images.

    Args:
        schedule: the noise schedule.
        prediction: what the network predicts: `eps`, `x0` or `v`.
        weighting: weight of the squared error: `uniform` in the predicted quantity; `min_snr`;
            `velocity`, the error of x0 divided by sigma, clipped at sigma = 0.05; or `residual`,
            the error of the network's own output, which needs `residual_std`.
        min_snr_gamma: gamma of min-SNR, above 0.
        timesteps: how training draws timesteps: `uniform`; `logit_normal`, the timestep nearest to
            a log(alpha / sigma) drawn from a normal distribution; or `last`, always T - 1, where
            nothing of the image is left, so that x0 prediction becomes a regression from the
            conditions (sampled in one step; the baseline of SR3, arXiv 2104.07636, and Palette).
        logit_mean: mean of log(alpha / sigma); below 0 trains more on noisy images.
        logit_std: standard deviation of log(alpha / sigma), above 0.
        learned_variance: whether the network has 2 C outputs, of which the second half
            interpolates the log variance of the DDPM step.
        residual_std: for x0 prediction by a stage with a conditioning image: the root mean square
            of what that image lacks of the result, which is then all that the network predicts;
            see `Residual`. None for a network that predicts the whole of x0.

    Raises:
        RecipeError: for an unknown name or a number out of range; for eps prediction with a
            schedule that ends at an SNR of zero, because x0 cannot be recovered from pure noise and
            eps; or if `residual_std` does not fit the rest.
        ContractError: for a value that is no number.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        prediction: Prediction = "v",
        weighting: Weighting = "uniform",
        min_snr_gamma: float = 5.0,
        timesteps: TimestepDraw = "uniform",
        logit_mean: float = -0.8,
        logit_std: float = 0.8,
        learned_variance: bool = False,
        residual_std: float | None = None,
    ) -> None:
        for name, value, kind in (
            ("prediction", prediction, Prediction),
            ("weighting", weighting, Weighting),
            ("timesteps", timesteps, TimestepDraw),
        ):
            if value not in get_args(kind):
                raise RecipeError(f"{name} must be one of {get_args(kind)}, got {value!r}.")
        learned_variance = flag("learned_variance", learned_variance)
        logit_mean = real_number("logit_mean", logit_mean)
        if not math.isfinite(logit_mean):
            raise RecipeError(f"logit_mean must be a finite number, got {logit_mean}.")
        min_snr_gamma = real_number("min_snr_gamma", min_snr_gamma)
        logit_std = real_number("logit_std", logit_std)
        for name, number in (("min_snr_gamma", min_snr_gamma), ("logit_std", logit_std)):
            if not 0 < number < math.inf:
                raise RecipeError(f"{name} must be above 0, and finite, got {number}.")
        if prediction == "eps" and schedule.alpha_bar[-1] == 0:
            raise RecipeError(
                "eps prediction cannot be used with zero_terminal_snr: the last timestep holds no "
                "image to recover. Use v or x0 prediction."
            )
        if residual_std is not None and (prediction != "x0" or learned_variance):
            raise RecipeError(
                "residual_std needs x0 prediction without learned_variance, got "
                f"{prediction} prediction {'with' if learned_variance else 'without'} it."
            )
        if weighting == "residual" and residual_std is None:
            raise RecipeError("residual weighting needs residual_std.")
        self.residual = None if residual_std is None else Residual(schedule, residual_std)
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.weighting: Weighting = weighting
        self.min_snr_gamma = min_snr_gamma
        self.timesteps: TimestepDraw = timesteps
        self.logit_mean = logit_mean
        self.logit_std = logit_std
        self.learned_variance = learned_variance

    def config(self) -> dict[str, Any]:
        """The keyword arguments besides `schedule` that make the same process."""
        return {
            "prediction": self.prediction,
            "weighting": self.weighting,
            "min_snr_gamma": self.min_snr_gamma,
            "timesteps": self.timesteps,
            "logit_mean": self.logit_mean,
            "logit_std": self.logit_std,
            "learned_variance": self.learned_variance,
            "residual_std": None if self.residual is None else self.residual.std,
        }

    def output_channels(self, channels: int) -> int:
        """Channels of the network's output for images of that many."""
        return 2 * channels if self.learned_variance else channels

    def draw_timesteps(self, u: Tensor) -> Tensor:
        """Map uniform numbers to training timesteps, one per image.

        Args:
            u: (B,) in [0, 1).

        Returns:
            (B,) int64 in [0, T).
        """
        exact = u.cpu().double()  # not every device has float64
        if self.timesteps == "uniform":
            return (exact * self.schedule.train_steps).long().to(u.device)
        if self.timesteps == "last":
            return torch.full_like(u, self.schedule.train_steps - 1, dtype=torch.long)
        normal = math.sqrt(2) * torch.erfinv((2 * exact - 1).clamp(-1 + 1e-12, 1 - 1e-12))
        return self._nearest(self.logit_mean + self.logit_std * normal).to(u.device)

    @property
    def lowest_reliable_timestep(self) -> int:
        """The timestep below which training draws too seldom to learn anything.

        It is 0 for uniform draws, T - 1 for `last`, and for `logit_normal` the timestep that is
        nearest to four standard deviations above the mean. Every timestep has some chance there,
        but those below share 3 of 100,000 draws, and what a network predicts at them is a guess.
        """
        if self.timesteps == "uniform":
            return 0
        if self.timesteps == "last":
            return self.schedule.train_steps - 1
        logit = self.logit_mean + self.logit_std * RELIABLE_STDS
        return int(self._nearest(torch.tensor([logit], dtype=torch.float64)))

    def _nearest(self, logit: Tensor) -> Tensor:
        """The timesteps (B,) whose log(alpha / sigma) is nearest to `logit` (B,)."""
        distance = (self.schedule.log_alpha_sigma[None] - logit[:, None]).abs()
        return distance.argmin(dim=1)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network learns to predict: (B, C, H, W) from x0 and eps (B, C, H, W), t (B,)."""
        if self.prediction == "x0":
            return x0
        if self.prediction == "eps":
            return eps
        alpha, sigma = self.schedule.alpha_sigma(t)
        return alpha * eps - sigma * x0

    def x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean image that a prediction implies; all (B, C, H, W), t (B,)."""
        if self.prediction == "x0":
            return prediction
        alpha, sigma = self.schedule.alpha_sigma(t)
        if self.prediction == "eps":
            return (x_t - sigma * prediction) / alpha
        return alpha * x_t - sigma * prediction

    def eps(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t if x0 is its clean image; all (B, C, H, W), t (B,)."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return (x_t - alpha * x0) / sigma

    def score(self, x0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p_t at x_t if x0 is the mean of its clean images.

        It is -eps / sigma (Song et al. 2021, arXiv 2011.13456; Tweedie's formula): about 1 / sigma
        in size, so it grows without bound towards the clean image.

        Args:
            x0: (B, C, H, W) clean images that the network predicts.
            x_t: (B, C, H, W) noisy images.
            t: (B,) timesteps.
        """
        _, sigma = self.schedule.alpha_sigma(t)
        return -self.eps(x0, x_t, t) / sigma

    def weight(self, t: Tensor) -> Tensor:
        """Weight of the squared error in the predicted quantity: (B, 1, 1, 1) from t (B,).

        A weight w for the error of x0 is w / SNR for that of eps and w / (SNR + 1) for that of v.
        """
        snr = self.schedule.snr(t)
        if self.weighting == "uniform":
            return torch.ones_like(snr).float()
        if self.weighting == "residual":
            assert self.residual is not None
            return self.residual.weight(t).float()
        if self.weighting == "velocity":
            in_x0 = (snr + 1).clamp(max=SMALLEST_VELOCITY_SIGMA**-2)
        else:
            in_x0 = snr.clamp(max=self.min_snr_gamma)
        if self.prediction == "x0":
            return in_x0.float()
        if self.prediction == "v":
            return (in_x0 / (snr + 1)).float()
        return torch.where(snr > 0, in_x0 / snr.clamp(min=1e-20), 1.0).float()

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Separate an output into prediction and variance channels, each (B, C, H, W).

        The variance is None unless it is learned.
        """
        if not self.learned_variance:
            return output, None
        prediction, variance = output.chunk(2, dim=1)
        return prediction, variance

    def loss(
        self,
        output: Tensor,
        x0: Tensor,
        x_t: Tensor,
        eps: Tensor,
        t: Tensor,
        *,
        counted: Tensor | None = None,
    ) -> Tensor:
        """The training loss of each image.

        Args:
            output: (B, C, H, W), or 2 C channels with learned variances.
            x0: clean images (B, C, H, W) in [-1, 1].
            x_t: noisy images (B, C, H, W).
            eps: the noise in them (B, C, H, W).
            t: (B,) timesteps.
            counted: (B, C or 1, H, W), 1 at values that count and 0 at others; None for all.

        Returns:
            (B,) weighted mean squared errors over the values that count, plus the variational term
            for learned variances (Nichol & Dhariwal 2021, eq. 16, lambda 0.001), whose gradient
            does not reach the mean; 0 for an image of which no value counts.
        """
        prediction, variance = self.split(output.float())
        error = (prediction - self.target(x0, eps, t)) ** 2
        loss = _mean(self.weight(t) * error, counted)
        if variance is None:
            return loss
        from cascade.diffusion.variance import variational_terms

        x0_hat = self.x0(prediction.detach(), x_t, t)
        bound = _mean(variational_terms(self.schedule, x0, x0_hat, x_t, t, variance), counted)
        return loss + 1e-3 * self.schedule.train_steps * bound


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """The mean (B,) of values (B, C, H, W) that count, 0 if none does; see `NoiseProcess.loss`."""
    if counted is not None:
        share = counted.mean(dim=(1, 2, 3), keepdim=True)
        values = values * counted / share.clamp(min=1 / counted[0].numel())
    return values.mean(dim=(1, 2, 3))
