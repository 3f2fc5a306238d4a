"""DiffusionStage: a network and its noise process make images from noise and conditions.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.arguments import check_kind
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError, SettingsError
from cascade.mapped_arrays import bytes_in_memory
from cascade.networks.adapters import (
    check_belongs,
    has_adapter,
    load_adapter,
    merged,
    write_adapter,
)
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import build_network
from cascade.networks.stage_network import StageNetwork, as_network
from cascade.prediction import Predictor
from cascade.sampling.memory import TILE_PX, fitting_tile_px
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.walk import check_can_walk
from cascade.sampling_run import SamplingRun
from cascade.saving.model_card import StageSummary
from cascade.saving.stage_folder import (
    ADAPTER,
    adapter_in,
    diffusion_config,
    read_diffusion_stage,
    write_network,
    write_scheduler,
)
from cascade.space import Size
from cascade.stage import Run, Stage


@final
class DiffusionStage(Stage):
    """A network, its noise process and its contract.

    Args:
        network: a `StageNetwork`, or any module that is called as `module(x_t, t, signals)`; see
            `cascade.networks.stage_network`.
        process: noise schedule, predicted quantity and loss weighting.
        contract: the images that the stage makes, and its conditions.
        sampling: default sampling settings; None for `contract.default_sampling`.

    Raises:
        ContractError: if network, process and conditions do not fit together.
    """

    kind = "diffusion"

    def __init__(
        self,
        network: nn.Module,
        process: NoiseProcess,
        contract: Contract,
        *,
        sampling: SamplingSettings | None = None,
    ) -> None:
        super().__init__(contract)
        self.network = as_network(network)
        self.process = process
        student = contract.student
        if student is not None:
            process.schedule.sampling_timesteps(student.steps)
        self._sampling = sampling or contract.default_sampling
        channels = contract.space.channels
        self.network.check(channels, process.output_channels(channels), contract.slots)
        if process.residual is not None:
            contract.residual_base()
        contract.check_augmentation_level(self._sampling.augmentation_level)

    @classmethod
    def build(
        cls,
        contract: Contract,
        process: NoiseProcess,
        *,
        network: str = "unet",
        network_options: Mapping[str, Any] | None = None,
        embedding_dim: int = 256,
        sampling: SamplingSettings | None = None,
    ) -> DiffusionStage:
        """Make a stage with a new, untrained network.

        Args:
            contract: the images that the stage makes, and its conditions.
            process: noise schedule, predicted quantity and loss weighting.
            network: `unet`, `transformer` or `mlp`.
            network_options: keyword arguments of the network's `build`.
            embedding_dim: length of the vector into which the conditions' vectors are embedded.
            sampling: default sampling settings; None for `contract.default_sampling`.

        Raises:
            CascadeError: for an unknown network or option, or if the parts do not fit together.
        """
        channels = contract.space.channels
        shape = NetworkShape(
            image_channels=channels,
            out_channels=process.output_channels(channels),
            size=contract.space.size,
            slots=contract.slots,
            embedding_dim=embedding_dim,
        )
        module = build_network(network, shape, {} if network_options is None else network_options)
        return cls(module, process, contract, sampling=sampling)

    @property
    def trunk(self) -> nn.Module:
        return self.network.trunk

    @property
    def sampling(self) -> SamplingSettings:
        return self._sampling

    def with_sampling(self, settings: SamplingSettings) -> DiffusionStage:
        self.check_settings(settings)
        other = copy.copy(self)
        other._modules = dict(self._modules)  # so that a new network in one leaves the other alone
        other._sampling = settings
        return other

    def with_network(self, network: StageNetwork) -> DiffusionStage:
        """Return a stage with the same settings whose predictions another network makes."""
        other = copy.copy(self)
        other._modules = {**self._modules, "network": network}
        return other

    def with_adapter(
        self, folder: str | Path, scale: float = 1.0, *, merge: bool = True
    ) -> DiffusionStage:
        """Return a stage with the change that an adapter was trained to make.

        Args:
            folder: folder of the adapter, of the stage that was trained with it, or of the run.
            scale: factor of the change; 1 as in training.
            merge: whether to add the change to a copy of the weights, which costs nothing in
                sampling; otherwise it is computed beside them.

        Raises:
            CascadeError: if there is no adapter, it was trained on another stage, or peft is not
                installed.
        """
        place = adapter_in(Path(folder))
        check_belongs(place, self.network.trunk)  # before the copy, which takes memory
        network = copy.deepcopy(self.network)
        load_adapter(network.trunk, place, scale=scale, merge=merge)
        return self.with_network(network)

    def default_tile_px(self, size_px: Size) -> int:
        """At most the trained size if the network has attention, which depends on the size."""
        largest = self.space.longer_px if self.network.has_attention else TILE_PX
        canvases = 1 + self._sampler_for(self.sampling).canvases
        held = canvases * bytes_in_memory((1, self.space.channels, *size_px))
        return fitting_tile_px(
            self.network.bytes_at_once,
            self.device,
            largest_px=largest,
            held_bytes=held if self.device.type == "cpu" else 0,
        )

    # ---- the network ----------------------------------------------------------------------------

    def predict(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        """Predict from noisy images the quantity that the process is trained on.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: the conditions' signals for the B images.

        Returns:
            (B, C, H, W), or 2 C channels with learned variances.
        """
        return Predictor(self.network, self.process, self.contract)(x_t, t, signals)

    def score(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        """The score that a prediction stands for: the gradient of log p(x_t | signals) at x_t.

        Args:
            x_t: (B, C, H, W) noisy images.
            t: (B,) training timesteps.
            signals: the conditions' signals for the B images.

        Returns:
            (B, C, H, W), -eps / sigma whatever the network predicts; see `NoiseProcess.score`.

        Raises:
            ContractError: if the stage is a student, whose outputs are no means of clean images.
        """
        if self.contract.student is not None:
            raise ContractError(
                f"a {self.contract.student.text} has no score; take the score of a stage that "
                "denoises at all noise levels."
            )
        prediction, _ = self.process.split(self.predict(x_t, t, signals).float())
        return self.process.score(self.process.x0(prediction, x_t, t), x_t, t)

    # ---- sampling -------------------------------------------------------------------------------

    @torch.no_grad()
    def run(
        self,
        seeds: Sequence[int],
        inputs: Inputs | None = None,
        previous: Tensor | None = None,
        run: Run | None = None,
    ) -> Tensor:
        inputs = Inputs() if inputs is None else inputs
        run = Run() if run is None else run
        check_kind("inputs", inputs, Inputs, "Inputs({...})")
        check_kind("run", run, Run, "Run(...)")
        check_kind("seeds", seeds, Sized, "a list of whole numbers")
        settings = run.settings or self.sampling
        sampler = self._sampler_for(settings)
        if run.hooks.resampling.resamplings > 1:
            self._check_goes_back(settings)
        self.contract.check_inputs(inputs, previous, len(seeds))
        making = SamplingRun(self.network, self.process, self.contract, sampler, settings, run)
        return making.images(seeds, inputs, previous)

    def check_walk(self, *, goes_back: bool, from_image: bool) -> None:
        if goes_back:
            self._check_goes_back(self.sampling)
        sampler = self._sampler_for(self.sampling)
        check_can_walk(sampler, goes_back=goes_back, from_image=from_image)

    def _check_goes_back(self, settings: SamplingSettings) -> None:
        """Check that a walk with these settings may go over its steps again."""
        if self.contract.student is not None:
            raise SettingsError(
                f"a {self.contract.student.text} cannot repeat its steps; use resamplings 1."
            )
        if settings.reuse > 1:
            raise SettingsError(
                f"reuse must be 1 to repeat steps, got {settings.reuse}: the features that steps "
                "share belong to other noise."
            )

    def check_settings(self, settings: SamplingSettings) -> None:
        sampler = self._sampler_for(settings)
        if settings.temperature != 1:  # some samplers refuse it when they first draw noise
            noise, pixel = SeededNoise([0]), torch.zeros(1, self.space.channels, 1, 1)
            noise.temperature = settings.temperature
            output = torch.cat([pixel, pixel], dim=1) if self.process.learned_variance else pixel
            sampler.step(output, sampler.start(pixel), 0, noise)

    def _sampler_for(self, settings: SamplingSettings) -> Sampler:
        """The sampler for one batch, after checking that the settings fit the stage."""
        self.contract.check_sampling(settings)
        if settings.reuse > 1 and not self.network.has_deep_features:
            raise ContractError(
                f"reuse must be 1 for this network, got {settings.reuse}; "
                f"{self.network.no_deep_features}."
            )
        sampler = settings.make_sampler(self.process)
        if settings.reuse > len(sampler.timesteps):
            raise ContractError(
                f"reuse must be at most the number of calls of the network, which is "
                f"{len(sampler.timesteps)} here; got {settings.reuse}."
            )
        return sampler

    def summary(self) -> StageSummary:
        student = self.contract.student
        return StageSummary(
            starts_from=self.contract.description,
            gives=self.space.size_text,
            network=self.network.kind,
            parameters=sum(each.numel() for each in self.parameters()),
            predicts=self.process.prediction + ("" if student is None else f"; {student.text}"),
            sampling=self.sampling,
            facts={key: text for each in self.conditions for key, text in each.facts().items()},
        )

    def meaning(self) -> dict[str, Any]:
        noise = {"schedule": self.process.schedule.config(), "process": self.process.config()}
        return {**super().meaning(), **noise}

    # ---- saving and loading ---------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        return diffusion_config(self.network, self.contract, self.process, self.sampling)

    def write_weights(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        write_network(merged(self.network), folder, dtype=dtype)
        if has_adapter(self.network):
            write_adapter(self.network, folder / ADAPTER)
        write_scheduler(folder, self.process, self.sampling)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DiffusionStage:
        """Load a stage that `save_pretrained` wrote, on the CPU, in float32.

        Raises:
            WeightsError: if the folder is missing, incomplete, damaged, or holds another kind of
                stage.
        """
        return read_diffusion_stage(Path(folder), cls).eval()
