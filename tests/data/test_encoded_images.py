from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_autoencoders import IdentityAutoencoder
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.contract import Contract
from cascade.data.batches import collate
from cascade.data.encoded_images import EncodedImages
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.space import Space


class Encoder:
    """An identity autoencoder of 16 px images that counts the images which it encodes."""

    def __init__(self, shift: float = 0.0) -> None:
        network = IdentityAutoencoder()
        self.stage = AutoencoderStage.of_network(network, Space(size_px=16)).scaled(shift, 1.0)
        self.count = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.count += len(images)
        return self.stage.encode(images)

    def encoded(self, images: TrainingImages, cache: Path) -> EncodedImages:
        return EncodedImages(images, self.stage.latent_space, self, cache, decode=self.stage.decode)


def pictures_of(folder: Path | list, **options) -> TrainingImages:
    source = folder if isinstance(folder, list) else open_source(str(folder))
    return TrainingImages(source, Contract(Space(size_px=16)), flip=(), **options)


def training_images(encoded: EncodedImages, **options) -> TrainingImages:
    contract = Contract(encoded.space)
    source = encoded.pictures.source
    return TrainingImages(source, contract, **{"flip": (), **options}, encoded=encoded)


def test_latents_of_the_same_images_are_made_once(pictures, tmp_path):
    encoder = Encoder()
    plain = pictures_of(pictures)
    images = training_images(encoder.encoded(plain, tmp_path))
    assert encoder.count == 18
    ours, theirs = (collate([each[place] for place in range(18)]) for each in (images, plain))
    assert torch.equal(ours.images, theirs.images)
    assert ours.seeds == theirs.seeds
    assert encoder.count == 18, "the files are read"
    encoder.encoded(pictures_of(pictures), tmp_path)
    assert encoder.count == 18, "a later run finds them"


def test_the_content_decides_which_images_are_encoded_again(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "copy")
    encoder = Encoder()
    encoder.encoded(pictures_of(folder), tmp_path / "cache")
    (folder / "red" / "0.png").rename(folder / "red" / "renamed.png")
    encoder.encoded(pictures_of(folder), tmp_path / "cache")
    assert encoder.count == 18
    Image.new("RGB", (36, 40), "green").save(folder / "red" / "1.png")
    encoded = encoder.encoded(pictures_of(folder), tmp_path / "cache")
    assert encoder.count == 19
    index = next(i for i in range(18) if encoded.pictures.source.key(i).endswith("red/1"))
    assert encoded.values(index)[1].mean() > encoded.values(index)[0].mean() + 0.5


def test_another_encoder_or_scale_has_latents_of_its_own(pictures, tmp_path):
    first, second = Encoder(), Encoder(shift=0.5)
    ours = first.encoded(pictures_of(pictures), tmp_path)
    theirs = second.encoded(pictures_of(pictures), tmp_path)
    assert (first.count, second.count) == (18, 18)
    torch.testing.assert_close(ours.values(3) - 0.5, theirs.values(3))
    contract = Contract(theirs.space)
    with pytest.raises(DataError, match="were encoded for"):
        TrainingImages(ours.pictures.source, contract, flip=(), encoded=ours)


def test_broken_and_small_images_are_named_as_without_an_encoder(pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "copy")
    (folder / "red" / "0.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save(folder / "blue" / "1.png")
    encoder, plain = Encoder(), pictures_of(folder, max_broken_share=0.5)
    encoded = encoder.encoded(plain, tmp_path / "cache")
    images = training_images(encoded, max_broken_share=0.5)
    assert encoder.count == 16
    ours = [images[place] for place in range(18)]
    theirs = [plain[place] for place in range(18)]
    assert [each.broken for each in ours] == [each.broken for each in theirs]
    assert any(each.broken for each in ours)
    assert [each.remarks for each in ours] == [each.remarks for each in theirs]
    assert any("8x8 px is smaller" in str(each.remarks) for each in ours)
    assert all(torch.equal(a.image, b.image) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("option", "index", "message"),
    [
        ({"outside": "error"}, 0, "of its values lie outside 0 to 4095"),
        ({"too_small": "skip"}, 1, "8x8 px is smaller than the stage's 16 px"),
        ({"range": (0, 70)}, 0, None),
    ],
)
def test_the_cache_serves_only_images_that_are_read_in_the_same_way(
    tmp_path, option, index, message
):
    """What one run clips, enlarges or maps otherwise is no latent of another run."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, side_px, value in (("a", 16, 5000), ("b", 8, 60)):
        Image.fromarray(np.full((side_px, side_px), value, np.uint16)).save(folder / f"{name}.png")
    options = {"range": (0, 4095), "outside": "clip", "too_small": "enlarge"}
    encoder, cache = Encoder(), tmp_path / "cache"
    encoder.encoded(pictures_of(folder, **options), cache)
    assert encoder.count == 2
    encoded = encoder.encoded(pictures_of(folder, **options | option), cache)
    assert encoder.count == (4 if message is None else 3)
    if message is not None:
        with pytest.raises(DataError, match=message):
            encoded.values(index)


def test_the_cache_serves_images_without_a_range_whatever_happens_outside_of_one(
    pictures, tmp_path
):
    encoder = Encoder()
    encoder.encoded(pictures_of(pictures, outside="clip"), tmp_path)
    count = encoder.count
    encoder.encoded(pictures_of(pictures, outside="error"), tmp_path)
    assert encoder.count == count > 0


def test_tensors_are_encoded_too(tmp_path):
    torch.manual_seed(0)
    tensors = [torch.rand(3, 16, 16) * 2 - 1 for _ in range(3)]
    encoded = Encoder().encoded(pictures_of(tensors), tmp_path)
    assert torch.equal(encoded.values(2), tensors[2])


def test_latents_in_a_data_set_have_no_bounds():
    space = Space(size_px=4, channels=2, kind="latents")
    latents = [torch.full((2, 4, 4), 3.5) for _ in range(2)]
    images = TrainingImages(latents, Contract(space), flip=())
    assert torch.equal(images[0].image, latents[0])
    with pytest.raises(DataError, match=r"values from 3\.5 to 3\.5"):
        TrainingImages([torch.full((2, 4, 4), 3.5)], Contract(Space(size_px=4, channels=2)))


@pytest.mark.parametrize("option", [{"flip": ("x",)}, {"crop_px": 8}, {"rotate90": True}])
def test_latents_are_not_cropped_or_mirrored(pictures, tmp_path, option):
    encoded = Encoder().encoded(pictures_of(pictures), tmp_path)
    with pytest.raises(
        DataError, match="latents of images are not those of their crops and mirror"
    ):
        training_images(encoded, **option)


def test_image_files_are_no_latents(pictures):
    space = Space(size_px=4, kind="latents")
    with pytest.raises(DataError, match="files hold pixels, but the stage makes latents"):
        TrainingImages(open_source(str(pictures)), Contract(space), flip=())
