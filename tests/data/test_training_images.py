from __future__ import annotations

import io
import json
import os
import shutil
import signal
from dataclasses import dataclass, replace
from itertools import islice
from typing import final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance, luminance
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.data.batches import PositionBatches, collate, load_batches
from cascade.data.fitting import fit_size
from cascade.data.sources import FolderSource, ShardSource, open_source
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.errors import CascadeError, DataError
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import from_uint8, to_uint8
from cascade.resizing import resize
from cascade.space import Space

CLASSES = Labels(fields={"class": ["blue", "red", "red-dot"]})
UNLABELLED = Contract(Space(size_px=16))
BASE = Contract(Space(size_px=16), (CLASSES,))
UPSAMPLER = Contract(Space(size_px=32), (CLASSES, LowResolution(size_px=8)))


def batches(images: TrainingImages, *, start=0, end=60, workers=0) -> list[Batch]:
    return list(load_batches(images, PositionBatches(start, end, 6), workers=workers))


def same(first: Batch, second: Batch) -> bool:
    names = first.conditions.keys()
    pairs = [(first.images, second.images)]
    pairs += [(first.conditions[name], second.conditions[name]) for name in names]
    alike = first.seeds == second.seeds and names == second.conditions.keys()
    return alike and all(torch.equal(a, b) for a, b in pairs)


def all_same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(map(same, first, second))


def training_images(source, contract=UPSAMPLER, **options) -> TrainingImages:
    return TrainingImages(source, contract, **({"crop_px": 16} | options))


# ---- the same batches, however they are made ----------------------------------------------------


def test_a_folder_and_shards_of_the_same_pictures_give_bit_identical_batches(
    pictures, tmp_path, write_shard
):
    members: list[dict[str, bytes]] = [{}, {}]
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        name = path.relative_to(pictures).with_suffix("").as_posix()
        label = json.dumps({"class": path.parent.name})
        members[number % 2] |= {f"{name}.png": path.read_bytes(), f"{name}.json": label.encode()}
    for number in range(2):
        write_shard(tmp_path / f"{number}.tar", members[number])
    shards = open_source(str(tmp_path / "{0..1}.tar"))
    assert isinstance(shards, ShardSource)
    assert all_same(
        batches(training_images(FolderSource(pictures))), batches(training_images(shards))
    )


@pytest.mark.parametrize("cache_mib", [0, 1000])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_neither_on_workers_nor_on_the_cache(pictures, workers, cache_mib):
    def make(cache: int) -> TrainingImages:
        return training_images(FolderSource(pictures), cache_mib=cache)

    plain = batches(make(0))
    assert all_same(batches(make(cache_mib), workers=workers), plain)


def test_a_full_cache_holds_what_it_may_and_changes_nothing(pictures, monkeypatch):
    images = training_images(FolderSource(pictures), cache_mib=1)
    images._cache_bytes_left = 3 * (32 * 32 + 8 * 8) * 3  # three of eighteen
    plain = batches(training_images(FolderSource(pictures), cache_mib=0))
    assert all_same(batches(images), plain)
    assert len(images._cache) == 3


@pytest.mark.parametrize("seen", [6, 18, 42])
def test_batches_from_the_middle_of_a_run_are_those_of_a_run_without_a_gap(pictures, seen):
    whole = batches(training_images(FolderSource(pictures)))
    resumed = batches(training_images(FolderSource(pictures)), start=seen)
    assert all_same(resumed, whole[seen // 6 :])


def test_crops_flips_and_order_come_from_the_run_s_seed(pictures):
    def make(seed: int) -> list[Batch]:
        return batches(training_images(FolderSource(pictures), seed=seed))

    first, other = make(0), make(1)
    assert all_same(make(0), first)
    assert not any(map(same, first, other))
    assert not {s for b in first for s in b.seeds} & {s for b in other for s in b.seeds}


def test_seeds_of_images_never_repeat_between_epochs(pictures):
    seeds = [
        seed for batch in batches(training_images(FolderSource(pictures))) for seed in batch.seeds
    ]
    assert len(seeds) == 60
    assert len(set(seeds)) == 60


def test_global_random_state_is_neither_used_nor_moved(pictures):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = training_images(FolderSource(pictures))[7]
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(1)
    assert training_images(FolderSource(pictures))[7].image.equal(first.image)


# ---- order --------------------------------------------------------------------------------------


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(1, 200))
def test_an_epoch_is_a_permutation(seed, epoch, count):
    assert epoch_order(seed, epoch, count).sort().values.equal(torch.arange(count))


def test_epochs_and_runs_have_different_orders():
    orders = {tuple(epoch_order(seed, epoch, 50).tolist()) for seed in (0, 1) for epoch in range(9)}
    assert len(orders) == 18


def test_every_epoch_shows_every_image_once(pictures):
    source = FolderSource(pictures)
    images = training_images(source, BASE, crop_px=None, flip=())
    expected = sorted(
        to_uint8(fitted(source, index, BASE.space)).flatten().tolist()
        for index in range(len(source))
    )
    for epoch in range(2):
        shown = [images[epoch * 18 + place].image for place in range(18)]
        assert sorted(to_uint8(image).flatten().tolist() for image in shown) == expected


def fitted(source, index: int, space: Space) -> torch.Tensor:
    image = decode_image(source.read(index), source.name(index))
    return from_uint8(fit_size(image, space, source.name(index)))


@given(
    start=st.integers(0, 50).map(lambda steps: steps * 12),
    end=st.integers(0, 900),
    processes=st.sampled_from([1, 2, 3, 4, 6]),
)
def test_processes_share_the_batches_of_one(start, end, processes):
    alone = list(PositionBatches(start, end, 12))
    shares = [
        list(PositionBatches(start, end, 12, rank=rank, processes=processes))
        for rank in range(processes)
    ]
    joined = [[p for share in step for p in share] for step in zip(*shares, strict=True)]
    assert joined == alone
    assert len(PositionBatches(start, end, 12)) == len(alone)


def test_positions_go_on_without_gap_or_repeat_up_to_the_end():
    positions = [position for batch in PositionBatches(24, 100, 12) for position in batch]
    assert positions == list(range(24, 108))  # the last batch is full
    assert list(PositionBatches(100, 100, 12)) == []
    assert list(PositionBatches(108, 100, 12)) == []


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(DataError, match="batch_size 10 must be a multiple of the 4 processes"):
        PositionBatches(0, 100, 10, processes=4)


# ---- crops --------------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_px", [8, 16, 28, 32])
def test_low_res_crops_are_crops_of_the_whole_picture_made_small(pictures, crop_px):
    places, flips = check_crops(pictures, UPSAMPLER, crop_px)
    assert flips == {False, True}
    assert len(places) > 1 or crop_px == 32


def check_crops(pictures, contract: Contract, crop_px: int) -> tuple[set, set]:
    """Check the crops of twelve samples, and return their places and whether they are mirrored."""
    source = FolderSource(pictures)
    images = training_images(source, contract, crop_px=crop_px)
    places, flips = set(), set()
    for position in range(12):
        sample = images[position]
        index = int(epoch_order(0, 0, 18)[position])
        whole = fitted(source, index, contract.space)
        top, left, flip = place_of(sample.image, whole)
        for condition in contract.conditions:
            image = condition.of_picture(whole, contract.space)
            if image is None:
                continue
            scale = whole.shape[-1] // image.shape[-1]
            assert top % scale == left % scale == 0
            rows, columns = (slice(at // scale, (at + crop_px) // scale) for at in (top, left))
            cut = flipped(image[:, rows, columns], flip)
            assert cut.shape[-2:] == (crop_px // scale, crop_px // scale)
            assert cut.equal(sample.conditions[condition.name])
        places.add((top, left))
        flips.add(flip)
    return places, flips


def place_of(part: torch.Tensor, whole: torch.Tensor) -> tuple[int, int, bool]:
    """Where a square was cut out of a whole image, and whether it was mirrored."""
    side = part.shape[-1]
    places = [
        (top, left, flip)
        for top in range(whole.shape[-2] - side + 1)
        for left in range(whole.shape[-1] - side + 1)
        for flip in (False, True)
        if flipped(whole[:, top : top + side, left : left + side], flip).equal(part)
    ]
    assert len(places) == 1  # the pictures have no two equal places
    return places[0]


def flipped(image: torch.Tensor, flip: bool) -> torch.Tensor:
    return image.flip(-1) if flip else image


def test_crops_of_a_rectangular_stage_move_along_both_sides(pictures):
    contract = Contract(Space(size_px=(24, 32)), (LowResolution(size_px=(6, 8)),))
    places, flips = check_crops(pictures, contract, 16)
    tops, lefts = ({place[side] for place in places} for side in (0, 1))
    assert tops == {0, 4, 8}
    assert lefts <= {0, 4, 8, 12, 16}
    assert len(lefts) > 2
    assert flips == {False, True}
    with pytest.raises(DataError, match="at most the stage's 24 px and a multiple of its scale 4"):
        training_images(FolderSource(pictures), contract, crop_px=28)


@final
@dataclass(frozen=True, kw_only=True)
class Thumbnail(Condition):
    """A grey image a third as large, beside whatever else a stage is told."""

    name = input_name = "thumbnail"
    recipe = dict

    def slots(self, space):
        return Slots(channels=1)

    def image_space(self, space):
        height, width = space.size
        return space.resized((height // 3, width // 3), channels=1)

    def of_picture(self, image, space):
        return resize(luminance(image[None]), self.image_space(space).size, "bicubic")[0]

    def of_batch(self, batch, space, noise):
        return Signals(channels={self.name: ChannelSignal(batch.conditions[self.name], 3)})

    def of_request(self, request):
        return Signals(channels={self.name: ChannelSignal(request.inputs.get(self.name), 3)})

    def absent(self, signals):
        return signals.map(torch.zeros_like)

    def input_of(self, batch, space, *, degraded=False):
        return batch.conditions[self.name]


def test_images_of_two_conditions_are_cut_at_the_same_place_on_whole_pixels(pictures):
    conditions = (CLASSES, LowResolution(size_px=9), Thumbnail())
    contract = Contract(Space(size_px=36), conditions)  # 4 and 3 times larger
    places, _ = check_crops(pictures, contract, 12)
    assert {at for place in places for at in place} == {0, 12, 24}
    batch = collate([training_images(FolderSource(pictures), contract, crop_px=12)[0]])
    shapes = {name: tuple(each.shape) for name, each in batch.conditions.items()}
    assert shapes == {
        "labels": (1, 1),
        "low_resolution": (1, 3, 3, 3),
        "thumbnail": (1, 1, 4, 4),
    }
    with pytest.raises(DataError, match="a multiple of its scale 12, got 8"):
        training_images(FolderSource(pictures), contract, crop_px=8)


def test_a_condition_without_an_image_of_its_own_adds_nothing_to_a_sample(pictures):
    contract = Contract(Space(size_px=16), (CLASSES, Luminance()))
    sample = training_images(FolderSource(pictures), contract)[0]
    assert sample.conditions.keys() == {"labels"}  # the grey image is made of the crop


def test_low_res_images_are_rounded_only_if_the_contract_says_so(pictures):
    for quantised in (True, False):
        condition = LowResolution(size_px=8, quantised=quantised)
        contract = Contract(Space(size_px=32), (condition,))
        source = FolderSource(pictures)
        sample = training_images(source, contract, crop_px=None, flip=())[0]
        index = int(epoch_order(0, 0, 18)[0])
        small = resize(fitted(source, index, contract.space)[None], (8, 8), "bicubic")[0]
        rounded = from_uint8(to_uint8(small))
        low_res = sample.conditions["low_resolution"]
        assert low_res.equal(rounded if quantised else small.clamp(-1, 1))
        assert not rounded.equal(small)


def test_without_flip_no_image_is_mirrored(pictures):
    source = FolderSource(pictures)
    images = training_images(source, BASE, crop_px=None, flip=())
    for position in range(18):
        index = int(epoch_order(0, 0, 18)[position])
        assert images[position].image.equal(fitted(source, index, BASE.space))


@pytest.mark.parametrize("crop_px", [33, 36, 10])
def test_a_crop_that_does_not_fit_is_refused(pictures, crop_px):
    with pytest.raises(DataError, match=rf"32 px and a multiple of its scale 4, got {crop_px}"):
        training_images(FolderSource(pictures), crop_px=crop_px)


# ---- sizes, ranges, labels ----------------------------------------------------------------------


def test_the_middle_square_is_taken_whatever_the_shape():
    wide = torch.linspace(-1, 1, 48).expand(3, 16, 48)
    tall = wide.transpose(1, 2)
    middle = to_uint8(torch.linspace(-1, 1, 48)[16:32])
    assert fit_size(wide, BASE.space, "a")[0, 5].equal(middle)
    assert fit_size(tall, BASE.space, "a")[0, :, 5].equal(middle)


@pytest.mark.parametrize(
    ("size", "cut"), [((16, 24), (24, 36)), ((40, 16), (40, 16)), ((20, 12), (40, 24))]
)
def test_the_middle_of_the_stage_s_shape_is_taken_and_as_much_as_covers_it(size, cut):
    image = torch.rand(3, 40, 36, generator=torch.Generator().manual_seed(0)) * 2 - 1
    top, left = (40 - cut[0]) // 2, (36 - cut[1]) // 2
    middle = image[None, :, top : top + cut[0], left : left + cut[1]]
    expected = to_uint8(resize(middle, size, "bicubic")[0])
    assert fit_size(image, Space(size_px=size), "a").equal(expected)


@pytest.mark.parametrize("size", [(41, 16), (16, 37)])
def test_an_image_that_is_too_small_in_one_direction_is_refused(size):
    text = f"a: 36x40 px is smaller than the stage's {size[1]}x{size[0]} px"
    with pytest.raises(DataError, match=text):
        fit_size(torch.zeros(3, 40, 36), Space(size_px=size), "a")


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
@pytest.mark.parametrize("side", [16, 17, 33, 50])
def test_images_shrink_to_the_stage_with_its_own_kernel(kernel, side):
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cut = side - side % 16 if kernel == "area" else side  # area is for whole factors
    first = (side - cut) // 2
    middle = image[None, :, first : first + cut, first : first + cut]
    small = fit_size(image, replace(BASE.space, resize_kernel=kernel), "a")
    assert small.equal(to_uint8(resize(middle, (16, 16), kernel)[0]))


def test_a_batch_is_in_range_and_has_the_stage_s_shapes(pictures):
    for batch in batches(training_images(FolderSource(pictures), crop_px=None)):
        assert batch.images.shape == (6, 3, 32, 32)
        assert batch.conditions["low_resolution"].shape == (6, 3, 8, 8)
        assert batch.conditions["labels"].shape == (6, 1)
        assert batch.conditions["labels"].dtype == torch.long
        for tensor in (batch.images, batch.conditions["low_resolution"]):
            assert tensor.dtype == torch.float32
            assert -1 <= tensor.min() < -0.7
            assert 0.9 < tensor.max() <= 1
            assert from_uint8(to_uint8(tensor)).equal(tensor)


def test_labels_follow_their_images_and_unknown_ones_are_minus_one(pictures, tmp_path, write_shard):
    batch = batches(training_images(FolderSource(pictures), BASE, crop_px=None))[0]
    indices = batch.conditions["labels"].flatten().tolist()
    for image, label in zip(batch.images, indices, strict=True):
        red, _, blue = image[:, 7, 7].tolist()
        assert (blue > red) == (CLASSES.vocabulary.decode([label]) == {"class": "blue"})
    member = {"1.png": (pictures / "red" / "0.png").read_bytes()}
    images = training_images(ShardSource(str(write_shard(tmp_path / "a.tar", member))), BASE)
    assert images[0].conditions["labels"].tolist() == [-1]


def test_a_class_that_the_stage_does_not_know_is_refused(pictures):
    few = Contract(Space(size_px=16), (Labels(fields={"class": ["blue", "red"]}),))
    images = TrainingImages(FolderSource(pictures), few)
    with pytest.raises(CascadeError, match="unknown class 'red-dot': did you mean 'red'"):
        [images[position] for position in range(18)]


# ---- images that do not do ----------------------------------------------------------------------


def first_of(path, contract=UNLABELLED) -> None:
    images = TrainingImages(FolderSource(path), contract)
    next(islice(load_batches(images, PositionBatches(0, 1, 1)), 1))


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated"])
def test_an_unreadable_image_is_named(tmp_path, pictures, damage):
    data = (pictures / "red" / "0.png").read_bytes()
    broken = {"garbage": b"no image", "empty": b"", "truncated": data[: len(data) // 2]}[damage]
    (tmp_path / "x.png").write_bytes(broken)
    with pytest.raises(DataError, match=r"x\.png: not a readable image") as error:
        first_of(tmp_path)
    assert "\n" not in str(error.value)


def test_an_unreadable_image_is_named_from_a_data_worker_too(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    images = TrainingImages(FolderSource(tmp_path), UNLABELLED)
    with pytest.raises(DataError, match=r"x\.png: not a readable image") as error:
        list(load_batches(images, PositionBatches(0, 2, 1), workers=1))
    assert "Traceback" not in str(error.value)


def test_an_image_smaller_than_the_stage_is_named_with_both_sizes(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (40, 15)).save(file, "PNG")
    (tmp_path / "small.png").write_bytes(file.getvalue())
    with pytest.raises(DataError, match=r"small\.png: 40x15 px is smaller than the stage's 16 px"):
        first_of(tmp_path)


@pytest.fixture
def partly_broken(pictures, tmp_path):
    """The pictures, of which two are damaged and one is too small; the order is that of names."""
    shutil.copytree(pictures, tmp_path / "pictures")
    for name in ("blue/1.png", "red/4.png"):
        path = tmp_path / "pictures" / name
        path.write_bytes(path.read_bytes()[:90])
    Image.new("RGB", (15, 40)).save(tmp_path / "pictures" / "red-dot" / "0.png")
    return tmp_path / "pictures"


DAMAGED, SMALL = ("blue/1.png", "red/4.png"), ("red-dot/0.png",)
BROKEN = DAMAGED + SMALL


def test_the_next_readable_image_of_the_epoch_stands_in_for_a_broken_one(pictures, partly_broken):
    whole, damaged = FolderSource(pictures), FolderSource(partly_broken)
    names = [whole.name(index).removeprefix(f"{pictures}/") for index in range(18)]
    plain = training_images(whole, BASE, crop_px=None, flip=())
    replaced = training_images(damaged, BASE, crop_px=None, flip=())
    for position in range(36):
        epoch, place = divmod(position, 18)
        order = [names[index] for index in epoch_order(0, epoch, 18).tolist()]
        ahead = next(n for n in range(18) if order[(place + n) % 18] not in BROKEN)
        sample, stand_in = replaced[position], plain[epoch * 18 + (place + ahead) % 18]
        assert sample.image.equal(stand_in.image)
        assert sample.conditions["labels"].equal(stand_in.conditions["labels"])
        assert sample.seed == plain[position].seed  # or one step would see one seed twice
        names_before = [order[(place + n) % 18] for n in range(ahead)]
        for texts, kind in ((sample.broken, DAMAGED), ([r.text for r in sample.remarks], SMALL)):
            reasons = [text.removeprefix(f"{partly_broken}/") for text in texts]
            expected = [name for name in names_before if name in kind]
            assert [reason.partition(":")[0] for reason in reasons] == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processes", [1, 2])
def test_stand_ins_depend_on_the_position_alone(partly_broken, workers, processes):
    plain = batches(training_images(FolderSource(partly_broken)))
    shares = [
        list(
            load_batches(
                training_images(FolderSource(partly_broken)),
                PositionBatches(18, 60, 6, rank=rank, processes=processes),
                workers=workers,
            )
        )
        for rank in range(processes)
    ]
    for number, parts in enumerate(zip(*shares, strict=True), start=3):
        assert torch.cat([part.images for part in parts]).equal(plain[number].images)
        assert sum((part.seeds for part in parts), ()) == plain[number].seeds
        assert {name for part in parts for name in part.broken} == set(plain[number].broken)


def test_a_batch_names_each_broken_image_once_with_its_reason(partly_broken):
    images = training_images(FolderSource(partly_broken), BASE, crop_px=None)
    batch = collate([images[position] for position in range(18)])
    assert len(batch.broken) == len(set(batch.broken)) == 2
    (small,) = batch.remarks
    assert small.kind == "too small, left out"
    assert "red-dot/0.png: 15x40 px is smaller than the stage's 16 px" in small.text
    assert batch.to("cpu").broken == batch.broken
    assert batch.to("cpu").remarks == batch.remarks
    assert collate([images[0]]).broken == images[0].broken


def test_more_broken_images_in_a_row_than_allowed_end_it(partly_broken):
    for path in partly_broken.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="4 of 18 images are broken") as error:
        batches(training_images(FolderSource(partly_broken)))
    assert str(error.value).count("not a readable image") == 3
    with pytest.raises(DataError, match=r"none of the 18 images .*: .*not a readable image"):
        _ = training_images(FolderSource(partly_broken), max_broken_share=1.0)[0]
    with pytest.raises(DataError, match="1 of 18 images are broken"):
        _ = training_images(FolderSource(partly_broken), max_broken_share=0.0)[0]


def test_fewer_images_than_a_batch_takes_are_refused(pictures):
    images = training_images(FolderSource(pictures))
    assert len(next(load_batches(images, PositionBatches(0, 18, 18)))) == 18
    with pytest.raises(DataError, match="18 images are too few for a batch of 19"):
        next(load_batches(images, PositionBatches(0, 19, 19)))


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_system_refuses_is_one_line_too(pictures, workers, monkeypatch):
    images = training_images(FolderSource(pictures))

    def fail(index):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(images.source, "read", fail)
    with pytest.raises(DataError, match="cannot be loaded: Too many open files") as error:
        batches(images, workers=workers)
    assert "\n" not in str(error.value)


def test_a_worker_that_is_killed_is_told_in_one_line(pictures, monkeypatch):
    images = training_images(FolderSource(pictures))
    monkeypatch.setattr(images.source, "read", lambda index: os.kill(os.getpid(), 9))
    with pytest.raises(DataError, match="a data worker was killed") as error:
        batches(images, workers=1)
    assert "\n" not in str(error.value)


def test_workers_outlive_the_signals_that_end_a_run(pictures, monkeypatch):
    images = training_images(FolderSource(pictures), cache_mib=0)
    plain, read = batches(images), images.source.read

    def read_after_signals(index):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return read(index)

    monkeypatch.setattr(images.source, "read", read_after_signals)
    assert all_same(batches(images, workers=1), plain)


def test_moving_a_batch_keeps_what_it_holds(pictures):
    batch = batches(training_images(FolderSource(pictures)))[0]
    assert same(batch.to("cpu"), batch)
    moved = batch.to("meta")
    assert moved.conditions.keys() == {"labels", "low_resolution"}
    for tensor in (moved.images, *moved.conditions.values()):
        assert tensor.device.type == "meta"
    assert len(moved) == 6
    assert moved.seeds == batch.seeds


def test_bytes_of_the_pixels_come_through_unchanged_at_the_stage_s_own_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = TrainingImages(FolderSource(tmp_path), UNLABELLED, flip=())[0].image
    assert np.array_equal(to_uint8(image).permute(1, 2, 0).numpy(), pixels)
