"""Pairs of files: three layouts, joint crops, sizes, missing partners, shifts."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.data import building
from cascade.data.band_decoding import BandDecoding
from cascade.data.batches import PositionBatches, collate, load_batches
from cascade.data.building import build_shards
from cascade.data.checking import check_images
from cascade.data.encoding import Encoding
from cascade.data.joining import BESIDE, Pairing
from cascade.data.pair_report import PairCheck
from cascade.data.preparation import LEFT_OUT, Decoding
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.writing import to_uint8
from cascade.space import Space

SCALE = 4
UPSAMPLER = Contract(Space(size_px=32), (LowResolution(size_px=8, paired=True),))
RESTORER = Contract(Space(size_px=32), (PairedImage(),))
NAMES = ("a", "b/c", "b/d", "e")


def low_of(number: int, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    """An image of random pixels (h, w, 3) uint8."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def enlarged(low: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """Each pixel as a square of equal pixels, so that any joint crop is one too."""
    return low.repeat(scale, 0).repeat(scale, 1)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, name: str, array: np.ndarray) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(array))


@pytest.fixture
def folders(tmp_path) -> Path:
    """`high` and `low` with pairs of the same names, x4."""
    for number, name in enumerate(NAMES):
        write(tmp_path / "low", f"{name}.png", low_of(number))
        write(tmp_path / "high", f"{name}.png", enlarged(low_of(number)))
    return tmp_path


def opened(folder: Path, **options):
    pairing = Pairing(str(folder / "low"))
    return open_source(str(folder / "high"), pairing=pairing, **options)


def beside(path: Path | str):
    return open_source(str(path), pairing=Pairing(BESIDE))


def training_images(source, contract=UPSAMPLER, **options) -> TrainingImages:
    return TrainingImages(source, contract, **({"crop_px": 16} | options))


def read_all(images: TrainingImages) -> list:
    """The samples of one epoch."""
    return [images[position] for position in range(len(images.source))]


# ---- layouts ------------------------------------------------------------------------------------


@pytest.fixture
def layouts(folders, write_shard):
    """The same pairs in each layout."""
    members = {}
    for number, name in enumerate(NAMES):
        pair = {"low": low_of(number), "high": enlarged(low_of(number))}
        for role, array in pair.items():
            write(folders / "beside", f"{name}.{role}.png", array)
            members[f"{name}.{role}.png"] = png(array)
    write_shard(folders / "pairs.tar", members)
    return [opened(folders), beside(folders / "beside"), beside(folders / "pairs.tar")]


def test_every_layout_gives_bit_identical_samples(layouts):
    for source in layouts:
        assert [source.key(index) for index in range(len(source))] == list(NAMES)
        assert source.notes.lines() == []
    first, *others = (training_images(source, flip=("x", "y")) for source in layouts)
    for position in range(9):
        sample = first[position]
        for other in others:
            assert other[position].image.equal(sample.image)
            assert other[position].seed == sample.seed
            low = sample.conditions["low_resolution"]
            assert other[position].conditions["low_resolution"].equal(low)


def test_labels_of_pairs_beside_each_other_have_the_name_without_role(layouts, folders):
    (folders / "beside" / "a.json").write_text('{"kind": "scan"}')
    source = beside(folders / "beside")
    assert source.labels(0) == {"kind": "scan"}
    assert source.labels(1) == {"class": "b"}
    assert source.notes.lines() == []


def test_shards_that_are_built_from_pairs_hold_the_same_pairs(folders, tmp_path):
    source = opened(folders)
    inputs = PairCheck(Decoding(), encode=Encoding())
    manifest = build_shards(
        source, tmp_path / "out", origin="high", encoding=Encoding(), inputs=inputs
    )
    assert manifest["counts"]["train"] == len(NAMES)
    assert manifest["pairs"] == str(folders / "low")
    built = beside(tmp_path / "out" / "train-*.tar")
    assert built.partners is not None
    assert source.partners is not None
    for index in range(len(NAMES)):
        assert built.key(index) == source.key(index)
        assert built.read(index) == source.read(index)
        assert built.partners.source.read(index) == source.partners.source.read(index)


def test_pairs_that_share_one_image_are_different_pairs(folders, tmp_path, monkeypatch):
    """Three inputs of one image, and a copy of one of these pairs."""
    builds = []
    monkeypatch.setattr(building, "_check_splits", lambda build, writers: builds.append(build))
    for number, name in enumerate(NAMES):
        write(folders / "high", f"{name}.png", enlarged(low_of(0)))
        write(folders / "low", f"{name}.png", low_of(min(number, 2)))
    inputs = PairCheck(Decoding(), max_shift_px=None, encode=Encoding())
    manifest = build_shards(
        opened(folders), tmp_path / "out", origin="high", encoding=Encoding(), inputs=inputs
    )
    assert (manifest["counts"]["train"], manifest["counts"]["duplicates"]) == (3, 1)
    report = check_images(opened(folders), pairs=inputs)
    assert report.duplicates == [(f"{folders}/high/e.png", f"{folders}/high/b/d.png")]
    kept = builds[0].firsts.values()
    assert len(kept) == 3
    assert {(each.encoded, each.pair, each.thumbnail) for each in kept} == {(None, None, None)}


def test_pairs_are_not_resized_into_shards(folders, tmp_path):
    inputs = PairCheck(Decoding(), encode=Encoding())
    with pytest.raises(DataError, match="images of pairs keep their size"):
        build_shards(
            opened(folders), tmp_path / "o", origin="", encoding=Encoding(8), inputs=inputs
        )


# ---- joint crops --------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_px", [None, 8, 16])
def test_crops_flips_and_rotations_are_joint(folders, crop_px):
    images = training_images(opened(folders), crop_px=crop_px, flip=("x", "y"), rotate90=True)
    seen = set()
    for position in range(40):
        sample = images[position]
        low = sample.conditions["low_resolution"]
        side = crop_px or 32
        assert sample.image.shape == (3, side, side)
        assert low.shape == (3, side // SCALE, side // SCALE)
        repeated = low.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
        assert sample.image.equal(repeated)
        seen.add(float(sample.image.sum()))
    assert len(seen) > 30  # not always the same part


def test_same_size_pairs_are_cut_alike(tmp_path):
    for number in range(3):
        image = enlarged(low_of(number, (40, 56)), 1)
        write(tmp_path / "high", f"{number}.png", image)
        write(tmp_path / "low", f"{number}.png", 255 - image)
    images = training_images(opened(tmp_path), RESTORER, flip=("x", "y"), rotate90=True)
    for position in range(12):
        sample = images[position]
        assert to_uint8(sample.conditions["paired_image"]).equal(255 - to_uint8(sample.image))


def test_the_middle_of_a_pair_begins_on_the_grid_of_the_input(folders):
    middle = training_images(opened(folders)).middle(0)
    low = torch.from_numpy(low_of(0)).permute(2, 0, 1)[:, 4:12, 6:14]
    assert middle.smaller["low_resolution"].equal(low)
    assert middle.image.equal(low.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2))


def test_processes_share_out_the_batches_of_one(folders):
    images = training_images(opened(folders))
    parts = [
        next(load_batches(images, PositionBatches(0, 4, 4, rank=rank, processes=2)))
        for rank in range(2)
    ]
    (whole,) = load_batches(images, PositionBatches(0, 4, 4))
    assert torch.cat([part.images for part in parts]).equal(whole.images)
    low = [part.conditions["low_resolution"] for part in parts]
    assert torch.cat(low).equal(whole.conditions["low_resolution"])


def test_neither_workers_nor_the_cache_change_pairs(folders):
    def batches(workers: int, cache_mib: int):
        images = training_images(opened(folders), cache_mib=cache_mib)
        return list(load_batches(images, PositionBatches(0, 16, 4), workers=workers))

    plain = batches(0, 0)
    for other in (batches(0, 100), batches(2, 100)):
        for a, b in zip(plain, other, strict=True):
            assert a.images.equal(b.images)
            assert a.conditions["low_resolution"].equal(b.conditions["low_resolution"])


# ---- bands --------------------------------------------------------------------------------------


def test_input_and_result_may_have_other_bands_and_ranges(tmp_path):
    high = np.random.default_rng(0).integers(0, 4001, (2, 40, 40)).astype(np.uint16)
    low = (high[:1] / 4000).astype(np.float32) * 10 - 5
    for name, array in (("high", high), ("low", low)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", array)
    contract = Contract(
        Space(size_px=32, channels=2, range=(0, 4000)), (PairedImage(channels=1, range=(-5, 5)),)
    )
    source = open_source(
        str(tmp_path / "high"),
        layout=Layout(2),
        pairing=Pairing(str(tmp_path / "low"), Layout(1)),
    )
    batch = collate([TrainingImages(source, contract)[0]])
    image = contract.inputs_of(batch).get("image")
    assert image.shape == (1, 1, 32, 32)
    assert torch.allclose(image, batch.images[:, :1], atol=1e-6)


# ---- what is refused ----------------------------------------------------------------------------


def test_images_without_a_partner_are_counted_and_named(folders):
    (folders / "low" / "e.png").unlink()
    write(folders / "low", "z.png", low_of(9))
    source = opened(folders)
    reason = f"{folders}/high/e.png: has no partner of the same name in {folders}/low."
    assert source.notes.lines() == [
        f"1 image without a partner: {reason}",
        f"1 input of no image: {folders}/low/z.png: is the input of no image, because none has its "
        "name.",
    ]
    samples = read_all(training_images(source))
    assert {name for sample in samples for name in sample.broken} == {reason}
    with pytest.raises(DataError, match=r"1 of 4 images are broken.*e\.png: has no partner"):
        read_all(training_images(source, max_broken_share=0.0))


def test_names_that_never_agree_are_one_error(folders):
    for path in list((folders / "low").rglob("*.png")):
        path.rename(path.with_name(f"{path.stem}_small.png"))
    with pytest.raises(DataError, match=r"none of the 4 images has a partner.*'a' is not among"):
        opened(folders)


def test_two_inputs_of_one_name_are_refused(folders):
    Image.fromarray(low_of(0)).save(folders / "low" / "a.jpg")
    with pytest.raises(DataError, match=r"two inputs in .* are called 'a'.*remove one"):
        opened(folders)


def test_two_images_of_one_name_do_not_share_an_input(folders):
    Image.fromarray(enlarged(low_of(0))).save(folders / "high" / "a.jpg")
    with pytest.raises(DataError, match=r"two images are called 'a'.*a\.jpg.*a\.png; remove one"):
        opened(folders)


def test_files_without_a_role_are_named(layouts, folders):
    write(folders / "beside", "other.png", low_of(1))
    (fault,) = beside(folders / "beside").notes.faults
    assert str(fault).endswith(
        "other.png: is neither NAME.low nor NAME.high, so it belongs to no pair."
    )
    with pytest.raises(DataError, match=r"no images in .*; looked for NAME\.high\."):
        beside(folders / "high")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            (16, 19),
            r"80x64 px, which is not a whole multiple of the 19x16 px of its partner .*e.png",
        ),
        ((32, 40), r"is 2 times as large as its partner .* are 4 times as large as its inputs"),
    ],
)
def test_a_pair_of_another_size_is_broken(folders, size, message):
    write(folders / "low", "e.png", low_of(3, size))
    with pytest.raises(DataError, match=message):
        read_all(training_images(opened(folders), max_broken_share=0.0))


def test_pairs_smaller_than_the_stage_are_left_out(folders):
    write(folders / "low", "e.png", low_of(3, (7, 9)))
    write(folders / "high", "e.png", enlarged(low_of(3, (7, 9))))
    images = training_images(opened(folders))
    kinds = [each.kind for sample in read_all(images) for each in sample.remarks]
    assert kinds == [LEFT_OUT]


def test_stage_and_data_must_both_have_pairs(folders):
    with pytest.raises(DataError, match="but the data holds no pairs"):
        training_images(open_source(str(folders / "high")))
    with pytest.raises(DataError, match="no condition of the stage takes an image of a pair"):
        training_images(opened(folders), Contract(Space(size_px=32)))
    with pytest.raises(DataError, match="images of pairs are not resized"):
        training_images(opened(folders), too_small="enlarge")


def test_an_upsampler_of_downscaled_images_takes_the_inputs_of_pairs_too(folders):
    plain = Contract(Space(size_px=32), (LowResolution(size_px=8),))
    sample = training_images(opened(folders), plain)[0]
    paired = training_images(opened(folders))[0]
    low = sample.conditions["low_resolution"]
    assert low.equal(paired.conditions["low_resolution"])


# ---- shifts -------------------------------------------------------------------------------------


def smooth(number: int, side: int) -> np.ndarray:
    """An image with structure of all sizes."""
    draw = torch.Generator().manual_seed(number)
    image = torch.zeros(1, 3, side, side)
    for cells in (4, 8, 16, 32):
        noise = torch.randn(1, 3, cells, cells, generator=draw)
        image += torch.nn.functional.interpolate(noise, (side, side), mode="bicubic") / cells**0.5
    return ((image[0] / 8 + 0.5).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()


@pytest.fixture
def shifted(tmp_path) -> Path:
    """Pairs of one size, the last of which lies 3 px apart."""
    for number in range(5):
        image = smooth(number, 72)
        right = 3 if number == 4 else 0
        write(tmp_path / "high", f"{number}.png", image[:64, right : 64 + right])
        write(tmp_path / "low", f"{number}.png", image[:64, :64] // 2 + 40)
    return tmp_path


def test_shifted_pairs_are_broken_beyond_the_limit(shifted):
    def broken(max_shift_px: float | None) -> set[str]:
        images = training_images(opened(shifted), RESTORER, max_shift_px=max_shift_px)
        return {name for sample in read_all(images) for name in sample.broken}

    assert broken(None) == broken(3.5) == set()
    assert broken(0.5) == {
        f"{shifted}/high/4.png: is shifted 3.00 ± 0.00 px (-3.00 right, +0.00 down) from its "
        "partner, but at most 0.5 px of the partner are allowed; align the pair, or allow more."
    }


def test_checking_reports_scales_and_shifts(shifted):
    report = check_images(opened(shifted), pairs=PairCheck(Decoding()))
    assert report.pairs.facts() == {
        "pairs": "5 of scale 1",
        "shift": "median 0.00 px (+0.00 right, +0.00 down) of the smaller image, "
        f"largest 3.00 ± 0.00 px ({shifted}/high/4.png)",
    }
    line = "is shifted 3.00 ± 0.00 px (-3.00 right, +0.00 down) from its partner, more than 0.5 px."
    assert report.lines()[0] == f"shifted: {shifted}/high/4.png: {line}"


def test_inputs_too_small_for_a_shift_are_counted_as_such(folders):
    report = check_images(opened(folders), pairs=PairCheck(Decoding()))
    assert report.facts()["shift"].endswith(f"{len(opened(folders))} not measured, below 32 px")


def test_a_shift_is_not_measured_where_nobody_asks(shifted):
    report = check_images(opened(shifted), pairs=PairCheck(Decoding(), max_shift_px=None))
    assert report.pairs.facts() == {"pairs": "5 of scale 1"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [(np.nan, "low/1.npy: 0.39 % of its values are NaN"), (99.0, "low/1.npy: 0.39 % .* outside")],
)
def test_checking_refuses_the_inputs_that_training_refuses(tmp_path, fault, words):
    low = np.random.default_rng(0).random((1, 16, 16)).astype(np.float32)
    for name in ("high", "low"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", low)
    low[0, 3, 4] = fault
    np.save(tmp_path / "low" / "1.npy", low)
    decoding = BandDecoding(1, Space(size_px=16, channels=1, range=(0, 1)), outside="error")
    source = open_source(
        str(tmp_path / "high"),
        layout=Layout(1),
        pairing=Pairing(str(tmp_path / "low"), Layout(1)),
    )
    report = check_images(source, decoding=decoding, pairs=PairCheck(decoding))
    assert re.search(words, report.broken[0])


def test_the_shift_of_bands_is_that_of_their_numbers_in_the_range(tmp_path):
    """The first band has small numbers and lies apart; the second has large ones."""
    picture = smooth(1, 72).transpose(2, 0, 1).astype(np.float32)
    high, low = picture[:2, :64, 3:67].copy(), picture[:2, :64, :64].copy()
    high[1] = low[1] = 1000 * picture[2, :64, :64]
    for name, array in (("high", high), ("low", low)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", array)
    ranges = ((0, 255), (0, 255e6))
    decoding = BandDecoding(2, Space(size_px=64, channels=2, range=ranges))
    source = open_source(
        str(tmp_path / "high"),
        layout=Layout(2),
        pairing=Pairing(str(tmp_path / "low"), Layout(2)),
    )
    report = check_images(source, decoding=decoding, pairs=PairCheck(decoding))
    assert [shift.x_px for shift in report.pairs.shifts.values()] == [pytest.approx(-3, abs=0.1)]
