"""Predictor: a network's prediction for noisy images, whatever it is trained to see and to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.networks.stage_network import StageNetwork
from cascade.sampling.kept_features import KeptFeatures


@final
@dataclass(frozen=True)
class Predictor:
    """Predicts from noisy images the quantity that a process is trained on.

    Args:
        network: the network, which sees a residual instead of the images if the process has one.
        process: noise schedule and predicted quantity.
        contract: tells which condition holds the images that a residual is relative to.
    """

    network: StageNetwork
    process: NoiseProcess
    contract: Contract

    def __call__(
        self, x_t: Tensor, t: Tensor, signals: Signals, kept: KeptFeatures | None = None
    ) -> Tensor:
        """Predict.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: the conditions' signals for the B images.
            kept: features that several calls share; default: none.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.
        """
        residual = self.process.residual
        signals = signals.enlarged()
        if residual is None:
            return self._output(x_t, t, signals, kept)
        condition = self.contract.residual_base()
        base = condition.first_guess(signals.channels[condition.name].image)
        output = self._output(residual.network_input(x_t, base, t), t, signals, kept)
        return residual.x0(output.float(), x_t, base, t)

    def _output(
        self, x_t: Tensor, t: Tensor, signals: Signals, kept: KeptFeatures | None
    ) -> Tensor:
        if kept is None:
            return self.network(x_t, t, signals)
        output, features = self.network.reusing(x_t, t, signals, kept.features)
        kept.keep(features)
        return output
