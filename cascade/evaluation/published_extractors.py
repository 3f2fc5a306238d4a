"""Inception, CLIP and DINOv2, the extractors of published figures.

Their networks are those of torch-fidelity and transformers. Their weights are downloaded on first
use, or read from a file or folder that the user names. Nothing is unpickled.

Shapes: B images, H and W pixels, F features, K classes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.errors import WeightsError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.published_weights import import_package, load_state, weights_error
from cascade.imaging.writing import to_uint8
from cascade.resizing import quantise, resize

INCEPTION_OUTPUTS = ["2048", "logits"]


@final
class InceptionFeatures(FeatureExtractor):
    """The Inception-v3 of FID and of the inception score, from torch-fidelity.

    Args:
        weights: a copy of `weights-inception-2015-12-05-6726825d.pth`; default: torch-fidelity's
            download.

    Raises:
        CascadeError: if torch-fidelity is not installed.
        WeightsError: if the weights cannot be loaded.
    """

    def __init__(self, weights: Path | None = None) -> None:
        module = import_package("torch_fidelity.feature_extractor_inceptionv3")
        state = load_state("Inception", module.URL_INCEPTION_V3, weights, "extractor_path")
        self.network = _inception(module, state, weights)
        self.name = "Inception"
        self.dim = int(INCEPTION_OUTPUTS[0])
        self.resizing = "bilinear of TensorFlow 1 to 299 px"

    def features(self, images: Tensor) -> Tensor:
        return self.network(to_uint8(images))[0]

    def classify(self, images: Tensor) -> Tensor:
        return self.network(to_uint8(images))[1].softmax(dim=1)


def _inception(module: Any, state: dict[str, Tensor], weights: Path | None) -> nn.Module:
    # torch-fidelity unpickles any file, so it gets one that we have written.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(state, file)
        try:
            network = module.FeatureExtractorInceptionV3(
                "inception-v3-compat", INCEPTION_OUTPUTS, feature_extractor_weights_path=str(file)
            )
        except RuntimeError as error:
            raise WeightsError(f"{weights}: not the weights of Inception-v3.") from error
    return network.eval().requires_grad_(False)


@dataclass(frozen=True)
class Published:
    """A vision transformer that published figures use.

    Attributes:
        name: part of the names of figures.
        kind: its class in transformers.
        output: the attribute of its output that holds the features.
        dim: the attribute of its configuration that holds their number.
        hub_id: repository of its weights on the Hugging Face Hub.
        mean: subtracted from each channel of images in [0, 1].
        std: by which each channel is then divided.
        most_px: largest side of its input, for networks that could take larger ones.
    """

    name: str
    kind: str
    output: str
    dim: str
    hub_id: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    most_px: int = 10_000


CLIP = Published(
    name="CLIP",
    kind="CLIPVisionModelWithProjection",
    output="image_embeds",
    dim="projection_dim",
    hub_id="openai/clip-vit-large-patch14",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
DINOV2 = Published(
    name="DINOv2",
    kind="Dinov2Model",
    output="pooler_output",
    dim="hidden_size",
    hub_id="facebook/dinov2-base",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    most_px=224,
)


@final
class TransformerFeatures(FeatureExtractor):
    """A vision transformer of the library transformers.

    Args:
        published: which one.
        folder: a folder with its `config.json` and `model.safetensors`; default: the Hub.

    Raises:
        CascadeError: if transformers is not installed.
        WeightsError: if the weights cannot be loaded.
    """

    def __init__(self, published: Published, folder: Path | None = None) -> None:
        module = import_package("transformers")
        if folder is not None and not (folder / "config.json").is_file():
            raise WeightsError(
                f"no {published.name} in {folder}; name a folder with config.json and "
                f"model.safetensors, such as a copy of {published.hub_id}."
            )
        try:
            network, loaded = getattr(module, published.kind).from_pretrained(
                folder or published.hub_id,
                local_files_only=folder is not None,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # many kinds: network, Hub, damaged files
            where = published.hub_id if folder is None else str(folder)
            raise weights_error(published.name, where, "extractor_path", error) from error
        missing_keys = sorted(loaded["missing_keys"])
        if missing_keys:  # transformers would fill them with random numbers
            raise WeightsError(
                f"{folder or published.hub_id}: not the weights of {published.name}; "
                f"{len(missing_keys)} of them are missing, such as {missing_keys[0]}."
            )
        self.network = network.eval().requires_grad_(False)
        width, patch_px = network.config.hidden_size, network.config.patch_size
        self.name = f"{published.name}-{width}/{patch_px}"  # tells its sizes apart
        self.dim = int(getattr(network.config, published.dim))
        self._published = published
        self._side_px = min(int(network.config.image_size), published.most_px)
        self.resizing = f"antialiased bicubic to {self._side_px} px"

    def features(self, images: Tensor) -> Tensor:
        images = (resize(quantise(images), (self._side_px, self._side_px), "bicubic") + 1) / 2
        mean, std = (
            torch.tensor(each, device=images.device).view(1, 3, 1, 1)
            for each in (self._published.mean, self._published.std)
        )
        return getattr(self.network((images - mean) / std), self._published.output)

    def classify(self, images: Tensor) -> None:
        return None
