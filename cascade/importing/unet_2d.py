"""Pipelines of diffusers with a `UNet2DModel`, such as `google/ddpm-celebahq-256`.

The folder holds `unet/` and `scheduler/`, or their files at its top. Class labels are supported as
a table of classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from cascade.conditioning.labels import Labels
from cascade.contract import Contract
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.importing.layout import (
    Imported,
    ImportOptions,
    Layout,
    class_names,
    network_shape,
)
from cascade.importing.schedulers import read_scheduler
from cascade.importing.weight_files import fill, fill_classes, read_component_weights
from cascade.networks.imported_networks import StageUNet2D
from cascade.saving.components import read_json
from cascade.space import Space

TABLE = "class_embedding.weight"
CLASS = "UNet2DModel"


def component_folder(source: Path, class_name: str) -> Path | None:
    """The folder whose `config.json` describes a class of diffusers: `unet` in it, or itself."""
    for folder in (source / "unet", source):
        file = folder / "config.json"
        if file.is_file() and read_json(file).get("_class_name") == class_name:
            return folder
    return None


@final
class UNet2DLayout(Layout):
    """A pipeline of diffusers with a `UNet2DModel`."""

    name = "a diffusers pipeline with a UNet2DModel"
    options = ("size_px", "class_names")

    def fits(self, source: Path) -> bool:
        return source.is_dir() and component_folder(source, CLASS) is not None

    def read(self, source: Path, options: ImportOptions) -> Imported:
        folder = component_folder(source, CLASS)
        assert folder is not None, "fits checks it"
        _check_pixels(source)
        config = {k: v for k, v in read_json(folder / "config.json").items() if k[0] != "_"}
        weights = read_component_weights(folder)
        channels, out_channels = config.get("in_channels", 3), config.get("out_channels", 3)
        if out_channels not in (channels, 2 * channels):
            raise WeightsError(
                f"{folder}: a base stage has as many channels in as out, or twice as many out if "
                f"variances are learned; this U-Net has {channels} in and {out_channels} out."
            )
        size = options.size_px or config.get("sample_size")
        if size is None:
            raise WeightsError(f"{folder / 'config.json'} states no sample_size; give size_px.")
        process, sampling = read_scheduler(source, learned_variance=out_channels > channels)
        space = Space(size_px=size, channels=channels)
        labels = _labels(config, options, folder)
        contract = Contract(space, () if labels is None else (labels,))
        table = weights.pop(TABLE, None)
        network = _network(config, contract, out_channels)
        fill(network.backbone, weights, folder)
        if labels is not None:
            assert network.embedding is not None
            if table is None:
                raise WeightsError(f"{folder} lacks {TABLE}.")
            fill_classes(network.embedding, table, folder)
        settings = contract.default_sampling.changed(**sampling)
        stage = DiffusionStage(network, process, contract, sampling=settings).eval()
        return Imported(stage, (f"a UNet2DModel of {space.size_text}",))


def _check_pixels(source: Path) -> None:
    """Check that a pipeline has no autoencoder, so that its U-Net makes pixels."""
    index = source / "model_index.json"
    parts = read_json(index) if index.is_file() else {}
    for name in ("vae", "vqvae", "autoencoder"):
        if name in parts:
            raise WeightsError(
                f"{source} works on the latents of its {name}; only networks that make pixels can "
                "be imported."
            )


def _labels(config: dict[str, Any], options: ImportOptions, folder: Path) -> Labels | None:
    """The classes of a U-Net; None without any."""
    kind, count = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind is not None:
        raise WeightsError(
            f"{folder}: class_embed_type {kind!r} is not known here; only a table of classes is."
        )
    if count is None:
        if options.class_names is not None:
            raise WeightsError(f"{folder} has no classes; leave class_names out.")
        return None
    return Labels(fields={"class": class_names(options, count)}, drop=0.0)


def _network(config: dict[str, Any], contract: Contract, out_channels: int) -> StageUNet2D:
    try:
        return StageUNet2D.build(network_shape(contract, out_channels), **config)
    except (TypeError, ValueError, LookupError) as error:
        raise WeightsError(f"the config does not describe a UNet2DModel: {error}.") from error
