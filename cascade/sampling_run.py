"""SamplingRun: how a diffusion stage makes images in one call, from noise to pixels.

Shapes: B images, C channels, H and W pixels of the results, h and w pixels of input images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.assembling import against_signals, request_signals
from cascade.conditioning.colours import with_colours_of
from cascade.conditioning.inputs import Inputs, Request
from cascade.contract import Contract
from cascade.devices import autocast, has_fast_bf16, precision_of_results, uses_bf16
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.mapped_arrays import release_pages, row_slices
from cascade.networks.stage_network import StageNetwork
from cascade.prediction import Predictor
from cascade.sampling.canvas import CanvasNoise, new_canvas
from cascade.sampling.guidance import GuidedNetwork, GuidedSignals
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import TiledNetwork, Tiling
from cascade.sampling.walk import Hooks, Known, walk
from cascade.space import Space
from cascade.stage import Run


@final
@dataclass(frozen=True)
class SamplingRun:
    """One call of a diffusion stage, whose settings are checked.

    Args:
        network: the network of the stage.
        process: its noise process.
        contract: its contract.
        sampler: the sampler of the settings.
        settings: sampling settings.
        run: tiles, hooks, random stream and precision.
    """

    network: StageNetwork
    process: NoiseProcess
    contract: Contract
    sampler: Sampler
    settings: SamplingSettings
    run: Run

    def images(self, seeds: Sequence[int], inputs: Inputs, previous: Tensor | None) -> Tensor:
        """Make images, one per seed.

        Args:
            seeds: one whole number per image.
            inputs: the user's inputs, which fit the contract.
            previous: (B, C, h, w), the images of the previous stage, in [-1, 1] for pixels; None
                for none.

        Returns:
            (B, C, H, W) float32, in [-1, 1] for pixels.
        """
        height, width = self.contract.result_size(inputs, previous)
        grid = math.lcm(self.contract.grid_px, self.network.size_multiple_px)
        size = (math.ceil(height / grid) * grid, math.ceil(width / grid) * grid)
        is_fitted = not self.network.has_attention  # what attention draws depends on the size
        tiling = Tiling(size, grid, self.run.tiles, len(seeds), is_fitted=is_fitted)
        device = self._device if tiling.is_whole else torch.device("cpu")
        noise = SeededNoise(seeds, self.run.stream, device=device)
        request = Request(
            inputs=inputs,
            previous=previous,
            space=self._space,
            size_px=size,
            result_px=(height, width),
            augmentation_level=self.settings.augmentation_level,
            denoise=self.settings.denoise,
            noise=noise,
        )
        network = self._tiled(self._signals(request), tiling)
        noise.temperature = self.settings.temperature
        canvas = new_canvas((len(seeds), self._space.channels, *size))  # (B, C, H, W)
        noise.fill_normal(canvas)
        fresh = CanvasNoise(noise, canvas.shape)
        hooks = self._hooks(inputs, previous)
        images = walk(self.sampler, network, canvas.to(device), fresh, hooks)
        return self._finished(images[..., :height, :width], request, hooks)

    @property
    def _space(self) -> Space:
        return self.contract.space

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _hooks(self, inputs: Inputs, previous: Tensor | None) -> Hooks:
        """Add the known pixels that an input holds, unless the caller knows others."""
        hooks = self.run.hooks
        known = self.contract.known_pixels(inputs, previous) if hooks.known is None else None
        return hooks if known is None else replace(hooks, known=Known(*known))

    def _signals(self, request: Request) -> GuidedSignals:
        conditions = self.contract.conditions
        signals = request_signals(conditions, request)
        if self.settings.guidance == 1:
            return GuidedSignals(signals)
        return GuidedSignals(signals, against_signals(conditions, request, signals))

    def _tiled(self, signals: GuidedSignals, tiling: Tiling) -> TiledNetwork:
        """The guided network, which predicts the whole canvas tile by tile."""
        device, process = self._device, self.process
        precision = precision_of_results(
            self.run.precision,
            next(self.network.parameters()).dtype,
            are_outputs=self._space.has_bands
            and process.prediction == "x0"
            and process.residual is None,
        )
        on_cpu, is_half = device.type == "cpu", uses_bf16(device, precision)
        is_fast = on_cpu and is_half and has_fast_bf16(device)
        network = self.network.for_bf16() if is_fast else self.network

        def context() -> AbstractContextManager:
            return autocast(device, precision)

        def prepare(signals: GuidedSignals) -> GuidedSignals:
            with context():
                own = network.prepared(signals.own)
            return GuidedSignals(own, signals.against.enlarged())

        predictor = Predictor(network, self.process, self.contract)
        model = GuidedNetwork(predictor, self.settings.guide, self.process.schedule, context)
        return TiledNetwork(model, prepare, signals, tiling, device, self.settings.reuse)

    def _finished(self, images: Tensor, request: Request, hooks: Hooks) -> Tensor:
        """Give images the colours that they keep, and the range of their space."""
        if hooks.callback is not None:  # it may have kept the last images
            images = images.clone()
        if self.settings.keep_colours:
            assert request.image is not None, "check_sampling and result_size check it"
            known = None if hooks.known is None else hooks.known.mask
            images = with_colours_of(request.image, images, unchanged=known)
        if not self._space.is_bounded:
            return images
        for rows in row_slices(images.shape):
            images[..., rows, :].clamp_(-1, 1)
            release_pages()
        return images
