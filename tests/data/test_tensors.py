"""Data sets of tensors as training images."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.batches import PositionBatches, load_batches
from cascade.data.folder import FolderSource
from cascade.data.tensors import TensorSource
from cascade.data.training_images import TrainingImages
from cascade.errors import ContractError, DataError
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import from_uint8
from cascade.resizing import resize
from cascade.space import Space
from cascade.training.image_list import keys_digest

NAMES = ["blue", "red", "red-dot"]
PLAIN = Contract(Space(size_px=16))
LABELLED = Contract(Space(size_px=16), (Labels(fields={"class": NAMES}),))
TWO_FIELDS = Contract(Space(size_px=16), (Labels(fields={"class": NAMES, "style": ["a", "b"]}),))
UPSAMPLER = Contract(
    Space(size_px=(40, 36)), (*LABELLED.conditions, LowResolution(size_px=(20, 18)))
)


def images(count: int = 4, channels: int = 3, size_px: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, size_px, size_px) * 2 - 1


class Pairs(Dataset):
    def __init__(self, items: list) -> None:
        self.items = items
        self.reads = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.reads += 1
        return self.items[index]


def test_tensors_and_files_of_the_same_pictures_give_the_same_samples(pictures):
    files = FolderSource(pictures)
    decoded = [decode_image(files.read(i), files.name(i)) for i in range(len(files))]
    labels = [NAMES.index(files.labels(i)["class"]) for i in range(len(files))]
    dataset = Pairs(list(zip(decoded, labels, strict=True)))
    for position in range(24):
        first = TrainingImages(files, UPSAMPLER, crop_px=16)[position]
        second = TrainingImages(dataset, UPSAMPLER, crop_px=16)[position]
        assert first.image.equal(second.image)
        assert first.conditions.keys() == second.conditions.keys() == {"labels", "low_resolution"}
        assert all(
            first.conditions[name].equal(second.conditions[name]) for name in first.conditions
        )
        assert first.seed == second.seed


def test_values_between_those_of_8_bits_are_kept():
    exact = images()
    sample = TrainingImages(list(exact), PLAIN, flip=())[0]
    assert any(sample.image.equal(each) for each in exact)
    assert not any(from_uint8(((e + 1) * 127.5).round().byte()).equal(sample.image) for e in exact)


def test_larger_tensors_are_downscaled_and_smaller_ones_are_refused():
    large = images(size_px=32)
    sized = TrainingImages(list(large), PLAIN).sized(1).image
    assert torch.allclose(sized, resize(large[1:2], (16, 16), "bicubic")[0])
    with pytest.raises(DataError, match=r"list\[0\]: 8x8 px is smaller than the stage's 16 px"):
        TrainingImages(list(images(size_px=8)), PLAIN).sized(0)


def test_a_space_that_no_file_holds_is_trained_on_tensors():
    bands = Contract(Space(size_px=16, channels=5, range=(0, 10_000)))
    assert TrainingImages(list(images(channels=5)), bands)[0].image.shape == (5, 16, 16)


@pytest.mark.parametrize(
    ("contract", "label", "expected"),
    [
        (LABELLED, 2, {"class": "red-dot"}),
        (LABELLED, "red", {"class": "red"}),
        (LABELLED, torch.tensor(1), {"class": "red"}),
        (LABELLED, np.int64(0), {"class": "blue"}),
        (LABELLED, -1, {}),
        (LABELLED, None, {}),
        (LABELLED, {"class": 1, "id": 12_345}, {"class": "red"}),
        (TWO_FIELDS, {"class": 1, "style": "b"}, {"class": "red", "style": "b"}),
        (PLAIN, 7, {}),
    ],
)
def test_labels_are_names_or_indices(contract, label, expected):
    (image,) = images(1)
    for item in ((image, label), {"image": image, "labels": label}):
        assert TensorSource([item], contract).labels(0) == expected


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (3, r"list\[0\]: label 'class' must be from -1 to 2, got 3"),
        (1.5, "must be a class name or the index of one, got float"),
        (True, "must be a class name or the index of one, got bool"),
        ([1, 0], "must be a class name or the index of one, got list"),
    ],
)
def test_a_label_that_does_not_fit_is_refused(label, words):
    with pytest.raises(DataError, match=words):
        TensorSource([(images(1)[0], label)], LABELLED)


@pytest.mark.parametrize("option", [{"range": (0, 99)}, {"truncated": "keep"}, {"missing": "mask"}])
def test_options_for_image_files_are_refused_for_tensors(option):
    with pytest.raises(DataError, match="range, truncated and missing are for image files"):
        TrainingImages(list(images()), PLAIN, **option)


def test_a_label_for_several_fields_must_name_them_and_a_wrong_name_is_answered():
    with pytest.raises(DataError, match="has one label, but the stage has the fields class, style"):
        TensorSource([(images(1)[0], 1)], TWO_FIELDS)
    with pytest.raises(ContractError, match="unknown class 'rde': did you mean 'red'"):
        TrainingImages([(images(1)[0], "rde")], LABELLED)[0]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (
            torch.zeros(16, 16, 3),
            r"must be \(3, H, W\), got \(16, 16, 3\); move the channels first",
        ),
        (torch.zeros(16, 16), r"must be \(3, H, W\), got \(16, 16\); change its shape"),
        (torch.zeros(1, 16, 16), r"must be \(3, H, W\), got \(1, 16, 16\)"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"got torch.uint8; .* image / 127.5 - 1"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), r"got torch.int64; .* image.float\(\)"),
        (torch.full((3, 16, 16), 255.0), r"values from 255 to 255, expected \[-1, 1\]; scale them"),
        (torch.full((3, 16, 16), float("nan")), "values that are not finite"),
        (np.zeros((3, 16, 16)), r"must be a tensor \(3, H, W\) in \[-1, 1\], got ndarray"),
        ({"pixels": 1}, r"has 'pixels'; an item must be an image, \(image, label\), or"),
        ((1, 2, 3), "has 3 parts; an item must be an image"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_before_training(item, words):
    with pytest.raises(DataError, match=rf"list\[0\]: .*{words}"):
        TensorSource([item], PLAIN)


class Stream(IterableDataset):
    def __iter__(self):
        yield from images()


class Endless(Dataset):
    def __getitem__(self, index: int) -> torch.Tensor:
        return images(1)[0]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (Stream(), "Stream can only be iterated over, so that a run could not resume"),
        (iter(images()), "can only be iterated over"),
        ("photos", r"got a path; open it first: open_source\('photos'\)"),
        (Endless(), "Endless has no length; give a Dataset with __len__"),
        ([], "list is empty"),
        (DataLoader(Pairs(list(images()))), r"got a DataLoader, .* \(loader.dataset\)"),
    ],
)
def test_what_has_no_positions_is_refused(dataset, words):
    with pytest.raises(DataError, match=words):
        TensorSource(dataset, PLAIN)


def test_images_from_0_to_1_are_doubted(caplog):
    TensorSource(list(images()), PLAIN)
    assert not caplog.records
    TensorSource(list((images() + 1) / 2), PLAIN)
    (record,) = caplog.records
    assert "below 0; images must fill [-1, 1], so convert them" in record.getMessage()


def test_an_item_is_read_once_for_its_image_and_its_label():
    dataset = Pairs([(image, 1) for image in images()])
    samples = TrainingImages(dataset, LABELLED)
    dataset.reads = 0
    assert samples[0].conditions["labels"].tolist() == [1]
    assert dataset.reads <= 1


def test_no_command_is_named_that_cannot_look_into_tensors():
    small = TrainingImages(Pairs(list(images(size_px=8))), PLAIN)
    with pytest.raises(DataError) as error:
        small[0]
    assert str(error.value).endswith("smaller than the stage's 16 px. 4 are too small.")


@pytest.mark.parametrize(
    ("labels", "words"), [(None, "label class; they"), ({"clas": "red"}, "label class, but clas;")]
)
def test_labels_that_the_stage_reads_and_the_items_lack_are_mentioned(labels, words, caplog):
    TensorSource(Pairs([{"image": each, "labels": labels} for each in images()]), LABELLED)
    assert words in caplog.text


def test_labels_that_are_there_are_not_mentioned(caplog):
    TensorSource(Pairs([(each, "red") for each in images()]), LABELLED)
    assert not caplog.records


def test_an_error_of_several_lines_becomes_one():
    class Failing(Pairs):
        def __getitem__(self, index: int):
            if self.reads > 8:
                raise OSError("the disk\nfell off")
            return super().__getitem__(index)

    dataset = TrainingImages(Failing(list(images(8))), PLAIN)
    positions = PositionBatches(0, 16, 4)
    with pytest.raises(DataError, match=r"^the data cannot be loaded: the disk\.$"):
        list(load_batches(dataset, positions))


# ---- telling data sets apart --------------------------------------------------------------------


def digest(items: Any, contract: Contract = PLAIN) -> str:
    return keys_digest(TensorSource(items, contract))


@pytest.mark.parametrize("count", [1, 4, 100])
def test_data_sets_of_one_length_differ_by_their_contents(count):
    first = images(count)
    assert digest(Pairs(list(first))) == digest(list(first.clone()))
    other = first.clone()
    other[0, 0, 0, 0] += 0.01 if other[0, 0, 0, 0] < 0 else -0.01
    assert digest(Pairs(list(other))) != digest(Pairs(list(first)))
    assert digest(Pairs(list(first.flip(-1)))) != digest(Pairs(list(first)))


def test_labels_belong_to_the_contents():
    pictures = images()
    sets = [[(each, label) for each in pictures] for label in (0, 1)]
    assert digest(sets[0], LABELLED) != digest(sets[1], LABELLED)


def test_a_data_set_that_changes_by_itself_is_no_other_one_but_named(caplog):
    class Noisy(Pairs):
        def __getitem__(self, index: int):
            return (self.items[index] + 0.01 * torch.rand(())).clamp(-1, 1)

    pictures = list(images())
    assert digest(Noisy(pictures)) == digest(Noisy(pictures))
    assert "does not always answer an index with the same item" in caplog.text


def test_one_that_rarely_changes_by_itself_is_noticed():
    """One item of 20 is mirrored: among 32 that are read twice, 3 differ on average."""
    numbers = random.Random(0)

    class Mirrored(Pairs):
        def __getitem__(self, index: int):
            return self.items[index].flip(-1) if numbers.random() < 0.05 else self.items[index]

    source = TensorSource(Mirrored(list(images(64))), PLAIN)
    assert sum(source.contents_digest() == "" for _ in range(40)) > 30


def test_a_single_item_is_made_twice():
    class Noisy(Pairs):
        def __getitem__(self, index: int):
            return (self.items[index] + 0.01 * torch.rand(())).clamp(-1, 1)

    assert TensorSource(Noisy(list(images(1))), PLAIN).contents_digest() == ""
