from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.data.band_decoding import BandDecoding
from cascade.data.band_encoding import BandEncoding
from cascade.data.building import build_shards
from cascade.data.folder import FolderSource
from cascade.data.overlap import shared_files
from cascade.data.source import ImageSource
from cascade.data.sources import open_source
from cascade.data.splitting import FileGroups, Shares, split_off
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout


def draw(folder: Path, count: int) -> Path:
    """Pictures of one colour each, which no two share, called `PERSON-NUMBER.png`."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (number, 7, 0)).save(folder / f"{number // 4:02d}-{number}.png")
    return folder


def keys(source: ImageSource) -> set[str]:
    return {source.key(index) for index in range(len(source))}


@pytest.mark.parametrize("by", [None, "person"])
def test_images_that_are_added_move_none_of_the_others(tmp_path, by):
    def parts(count: int) -> tuple[set[str], set[str]]:
        folder = draw(tmp_path / "in", count)
        source = FolderSource(folder, name_pattern=r"(?P<person>\d+)-")
        training, validation = split_off(source, 0.3, by)
        return keys(training), keys(validation)

    training, validation = parts(40)
    assert len(training | validation) == len(training) + len(validation) == 40
    more_training, more_validation = parts(80)
    assert training < more_training
    assert validation < more_validation
    if by is None:  # there are few people
        assert len(more_validation) / 80 == pytest.approx(0.3, abs=0.15)
    people = [{key.split("-")[0] for key in part} for part in (more_training, more_validation)]
    assert bool(people[0] & people[1]) == (by is None)


def test_equal_files_stay_together_whatever_their_names(tmp_path):
    folder = draw(tmp_path / "in", 30)
    for file in sorted(folder.iterdir()):
        shutil.copy(file, folder / f"copy-{file.name}")
    training, validation = split_off(FolderSource(folder), 0.4)
    originals = [{key.removeprefix("copy-") for key in keys(p)} for p in (training, validation)]
    assert originals[0] & originals[1] == set()
    assert [2 * len(each) for each in originals] == [len(training), len(validation)]
    assert shared_files(validation, training) == []


@pytest.mark.parametrize("in_shards", [False, True])
def test_the_slices_of_a_volume_stay_together(tmp_path, in_shards):
    noise = np.random.default_rng(0)
    for number in range(12):
        np.save(tmp_path / f"{number}.npy", noise.integers(0, 99, (3, 4, 4, 1), dtype=np.uint16))
    source = open_source(str(tmp_path), layout=Layout(1))
    if in_shards:
        decoding = BandDecoding(1)
        build_shards(
            source, tmp_path / "out", origin="", encoding=BandEncoding(), decoding=decoding
        )
        source = open_source(str(tmp_path / "out" / "*.tar"), layout=Layout(1))
    training, validation = split_off(source, 0.5)
    assert len(source) == len(training) + len(validation) == 36
    volumes = [{key.split("#")[0] for key in keys(part)} for part in (training, validation)]
    assert volumes[0] & volumes[1] == set()
    assert [3 * len(each) for each in volumes] == [len(training), len(validation)]

    groups = FileGroups(source)  # as `data build --split` divides images, which may be shards too
    assert len({groups.group_of(index) for index in range(36)}) == 12


def test_the_test_split_does_not_depend_on_the_share_of_validation():
    groups = [str(number) for number in range(300)]
    tested = [
        {group for group in groups if Shares(0.8 - v, v, 0.2).split_of(group) == "test"}
        for v in (0.0, 0.1, 0.4)
    ]
    assert tested[0] == tested[1] == tested[2]
    assert len(tested[0]) == pytest.approx(60, abs=20)


@pytest.mark.parametrize(
    ("share", "by", "words"),
    [
        (
            0.001,
            None,
            r"^a share of 0\.001 of the images leaves no validation images, of 8 in",
        ),
        (0.999, None, "leaves no training images, of 8 in all; add images or take a smaller share"),
        (0.01, "person", "a share of 0.01 of the names of 'person' leaves no validation images"),
        (0.5, "subject", "no image has a label 'subject'"),
    ],
)
def test_a_split_without_images_or_label_is_refused(tmp_path, share, by, words):
    source = FolderSource(draw(tmp_path / "in", 8), name_pattern=r"(?P<person>\d+)-")
    with pytest.raises(DataError, match=words):
        split_off(source, share, by)


def test_files_in_both_sets_are_found_under_other_names(tmp_path):
    training, validation = draw(tmp_path / "a", 9), tmp_path / "b"
    validation.mkdir()
    shutil.copy(training / "01-5.png", validation / "other.png")
    Image.new("RGB", (4, 4), (200, 7, 0)).save(validation / "new.png")
    pairs = shared_files(FolderSource(validation), FolderSource(training))
    assert pairs == [(str(validation / "other.png"), str(training / "01-5.png"))]


@pytest.mark.parametrize("numbers", [(), (0.8, 0.1), (0, 1), (1.2, -0.2), (0.4, 0.2, 0.2, 0.2)])
def test_shares_add_up_to_1(numbers):
    with pytest.raises(DataError, match=r"two or three shares .* such as 0\.8,0\.1,0\.1; got"):
        Shares.of(numbers)
