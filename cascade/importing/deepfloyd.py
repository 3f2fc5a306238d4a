"""Pipelines of diffusers with a U-Net of DeepFloyd IF: stage I makes 64 px of text, II 256 px."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from cascade.conditioning.condition import Condition
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.text import Text
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.importing.layout import Imported, ImportOptions, Layout
from cascade.importing.schedulers import read_scheduler
from cascade.importing.unet_2d import component_folder
from cascade.importing.weight_files import fill, read_component_weights
from cascade.networks.imported_networks import DeepFloydUNet, level_of_step
from cascade.saving.components import read_json
from cascade.space import Space
from cascade.text.encoder_folder import EncoderFolder

CLASS = "UNet2DConditionModel"
ENCODER = "google/t5-v1_1-xxl"
TOKENS = 77  # of a text, in training
SCALE = 4  # of the upsampler
DROP = 0.1  # share of training images without their text (Imagen, arXiv 2205.11487)
NOISE_STEP = 250  # on the low-resolution image, as in diffusers' pipeline
BASE_SAMPLING = {"sampler": "ddpm", "steps": 100, "guidance": 7.0}  # as there
UPSAMPLER_SAMPLING = {"sampler": "ddpm", "steps": 50, "guidance": 4.0}


@final
class DeepFloydLayout(Layout):
    """A pipeline of diffusers with a U-Net of DeepFloyd IF."""

    name = "a diffusers pipeline of DeepFloyd IF"
    options = ("size_px", "low_size_px", "text_encoder")

    def fits(self, source: Path) -> bool:
        folder = component_folder(source, CLASS) if source.is_dir() else None
        if folder is None:
            return False
        blocks = read_json(folder / "config.json").get("down_block_types", ())
        return any(str(each).startswith("SimpleCrossAttn") for each in blocks)

    def read(self, source: Path, options: ImportOptions) -> Imported:
        folder = component_folder(source, CLASS)
        assert folder is not None, "fits checks it"
        config = {k: v for k, v in read_json(folder / "config.json").items() if k[0] != "_"}
        is_upsampler = _is_upsampler(config, folder)
        channels = config["in_channels"] // (2 if is_upsampler else 1)
        text = Text.of_encoder(
            options.text_encoder or _own_encoder(source), max_tokens=TOKENS, drop=DROP, padded=True
        )
        contract = _contract(config, options, text, channels, is_upsampler=is_upsampler)
        has_variance = config["out_channels"] == 2 * channels
        process, sampling = read_scheduler(source, learned_variance=has_variance)
        network = DeepFloydUNet(_unet(config, folder))
        fill(network.unet, read_component_weights(folder), folder)
        defaults = UPSAMPLER_SAMPLING if is_upsampler else BASE_SAMPLING
        settings = contract.default_sampling.changed(**defaults, **sampling)
        if is_upsampler:
            settings = settings.changed(augmentation_level=level_of_step(NOISE_STEP))
        stage = DiffusionStage(network, process, contract, sampling=settings).eval()
        remarks = [f"stage {'II' if is_upsampler else 'I'} of DeepFloyd IF, text of {text.encoder}"]
        return Imported(stage, tuple(remarks))


def _own_encoder(source: Path) -> str:
    """The text encoder in the folder of the pipeline, or else its name on the Hub."""
    folder = EncoderFolder(source / "text_encoder")
    return str(folder.path) if folder.has_weights and folder.has_tokenizer else ENCODER


def _is_upsampler(config: dict[str, Any], folder: Path) -> bool:
    """Whether the U-Net takes a noised low-resolution image."""
    kind = config.get("class_embed_type")
    if kind not in (None, "timestep") or config.get("addition_embed_type") not in (None, "text"):
        raise WeightsError(
            f"{folder} is not a U-Net of DeepFloyd IF: class_embed_type {kind!r}, "
            f"addition_embed_type {config.get('addition_embed_type')!r}."
        )
    return kind == "timestep"


def _contract(
    config: dict[str, Any],
    options: ImportOptions,
    text: Text,
    channels: int,
    *,
    is_upsampler: bool,
) -> Contract:
    size = options.size_px or config.get("sample_size")
    if size is None:
        raise WeightsError("config.json states no sample_size; give size_px.")
    conditions: list[Condition] = [text]
    if is_upsampler:
        low = LowResolution(
            size_px=options.low_size_px or size // SCALE,
            quantised=False,
            augmentation_range=(0.0, 1.0),
            upscaling="bilinear_corners",
        )
        conditions.append(low)
    elif options.low_size_px is not None:
        raise WeightsError("low_size_px is for upsamplers; these weights are a base model.")
    return Contract(Space(size_px=size, channels=channels), tuple(conditions))


def _unet(config: dict[str, Any], folder: Path) -> Any:
    from diffusers import UNet2DConditionModel

    try:
        return UNet2DConditionModel(**config)
    except (TypeError, ValueError, LookupError) as error:
        raise WeightsError(f"{folder / 'config.json'} describes no U-Net: {error}.") from error
