"""Checkpoints of guided diffusion and improved diffusion: base models and upsamplers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, final

from torch import Tensor

from cascade.conditioning.condition import Condition
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, WeightsError
from cascade.importing.adm_shapes import (
    FIRST,
    LABELS,
    Published,
    choose_prefix,
    find_published,
    read_shapes,
)
from cascade.importing.layout import (
    Imported,
    ImportOptions,
    Layout,
    class_names,
    network_shape,
)
from cascade.importing.weight_files import (
    SUFFIXES,
    Weights,
    fill,
    fill_classes,
    read_weights,
    silence,
)
from cascade.networks.imported_networks import StageADMUNet
from cascade.reporting.words import counted
from cascade.space import Space

SAMPLING_STEPS = 250  # as in the authors' examples
RGB = 3


@final
class GuidedDiffusionLayout(Layout):
    """A checkpoint of guided diffusion.

    The image channels are three. Six channels in make an upsampler; six channels out are three of
    noise and three of variances.
    """

    name = "a checkpoint of guided diffusion"
    options = (
        "size_px",
        "low_size_px",
        "heads",
        "head_channels",
        "attention_order",
        "noise_schedule",
        "class_names",
        "train_steps",
        "rescale_timesteps",
    )

    def fits(self, source: Path) -> bool:
        return source.suffix in SUFFIXES and source.is_file()

    def read(self, source: Path, options: ImportOptions) -> Imported:
        weights, remarks = _network_weights(read_weights(source), source)
        shapes = read_shapes(weights, source)
        is_upsampler = _is_upsampler(shapes, source)
        facts = find_published(shapes, is_upsampler=is_upsampler)
        options, remark = _with_defaults(options, facts, is_upsampler=is_upsampler)
        remarks.append(remark)
        table = weights.pop(LABELS, None)
        contract = _contract(options, table, is_upsampler=is_upsampler)
        network = _network(shapes, options, contract, source)
        fill(network.backbone, weights, source)
        if network.embedding is not None:
            if table is not None:
                fill_classes(network.embedding, table, source)
            if is_upsampler:
                silence(network.embedding, LowResolution.name)
        process = NoiseProcess(
            NoiseSchedule(
                options.noise_schedule or "linear", train_steps=options.train_steps or 1000
            ),
            prediction="eps",
            learned_variance=shapes["out_channels"] == 2 * RGB,
        )
        settings = contract.default_sampling.changed(sampler="ddpm", steps=SAMPLING_STEPS)
        stage = DiffusionStage(network, process, contract, sampling=settings).eval()
        return Imported(stage, tuple(remarks))


def _network_weights(tensors: Weights, source: Path) -> tuple[Weights, list[str]]:
    """The network's weights by their own names, and what was passed over."""
    if not any(name.endswith(FIRST) for name in tensors):
        names = ", ".join(sorted(tensors)[:3]) or "none"
        raise WeightsError(
            f"{source} has an unknown layout: no tensor is called {FIRST}, as in guided diffusion "
            f"(the first names: {names})."
        )
    prefix, others = choose_prefix(list(tensors))
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    remarks = []
    for other in others:
        if not prefix:  # else they are outside already
            own = {name: each for name, each in own.items() if not name.startswith(other)}
        words = "averaged" if "ema" in prefix.lower() else "first"
        remarks.append(f"took the {words} weights ({prefix or 'without a prefix'}), not {other}")
    outside = len(tensors) - len(own)
    if outside:
        remarks.append(f"left out {counted(outside, 'tensor')} of other modules")
    return own, remarks


def _is_upsampler(shapes: dict[str, Any], source: Path) -> bool:
    ins, outs = shapes["in_channels"], shapes["out_channels"]
    if ins not in (RGB, 2 * RGB) or outs not in (RGB, 2 * RGB):
        raise WeightsError(
            f"{source} must have 3 or 6 channels in and out, it has {ins} and {outs}."
        )
    return ins == 2 * RGB


def _with_defaults(
    options: ImportOptions, published: Published | None, *, is_upsampler: bool
) -> tuple[ImportOptions, str]:
    """Fill in what the user does not state; returns it and, in words, what was assumed."""
    if not is_upsampler and options.low_size_px is not None:
        raise ContractError("low_size_px is for upsamplers; these weights are a base model.")
    facts = published or Published(options.size_px or 0, options.low_size_px)
    heads, channels = options.heads, options.head_channels
    if heads is not None and channels is not None:
        raise ContractError("give heads or head_channels, not both.")
    if heads is None and channels is None:
        heads, channels = facts.heads, 64 if facts.heads is None else None
    options = replace(
        options,
        size_px=options.size_px or facts.size_px or None,
        low_size_px=options.low_size_px or facts.low_size_px,
        heads=heads,
        head_channels=channels,
        attention_order=options.attention_order or facts.attention_order,
        noise_schedule=options.noise_schedule or facts.noise_schedule,
        train_steps=options.train_steps or facts.train_steps,
        rescale_timesteps=facts.rescale_timesteps
        if options.rescale_timesteps is None
        else options.rescale_timesteps,
    )
    if options.size_px is None or (is_upsampler and options.low_size_px is None):
        sizes = "size_px and low_size_px" if is_upsampler else "size_px"
        raise ContractError(f"no published weights have these shapes; state {sizes}.")
    origin = "published weights with these shapes have" if published else "no shape shows, assumed"
    attention = f"{heads} heads" if heads else f"heads of {channels} channels"
    rescaled = ", rescaled" if options.rescale_timesteps else ""
    return options, (
        f"{origin}: {attention}, {options.attention_order} attention order, "
        f"{options.noise_schedule} noise schedule of {options.train_steps} steps{rescaled}"
    )


def _contract(options: ImportOptions, table: Tensor | None, *, is_upsampler: bool) -> Contract:
    """The images and conditions.

    Its upsamplers were trained on images that were averaged over areas, so that their bases must
    have that kernel too.
    """
    assert options.size_px is not None
    conditions: list[Condition] = []
    if table is not None:
        names = class_names(options, len(table))
        conditions.append(Labels(fields={"class": names}, drop=0.0))
    elif options.class_names is not None:
        raise ContractError("these weights have no classes; leave class_names out.")
    if is_upsampler:
        assert options.low_size_px is not None
        conditions.append(LowResolution(size_px=options.low_size_px, upscaling="bilinear"))
    return Contract(Space(size_px=options.size_px, resize_kernel="area"), tuple(conditions))


def _network(
    shapes: dict[str, Any], options: ImportOptions, contract: Contract, source: Path
) -> StageADMUNet:
    try:
        return StageADMUNet.build(
            network_shape(contract, shapes["out_channels"]),
            **shapes,
            heads=options.heads,
            head_channels=options.head_channels,
            attention_order=options.attention_order or "legacy",
            timestep_scale=1000 / (options.train_steps or 1000)
            if options.rescale_timesteps
            else 1.0,
        )
    except ValueError as error:
        raise WeightsError(f"{source}: {error}; state other heads or head_channels.") from error
