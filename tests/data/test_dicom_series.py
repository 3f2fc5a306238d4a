"""Slices of DICOM series, a file for each: grouped by series, in the order of their positions."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cascade.data.joining import Pairing
from cascade.data.shards import ShardSource
from cascade.data.sources import open_source
from cascade.data.splitting import FileGroups, split_off
from cascade.errors import DataError
from cascade.imaging.rasters.dicom import _place_of
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.reading import RASTER_SUFFIXES, decode_raster

pytest.importorskip("pydicom")
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

AXIAL = [1, 0, 0, 0, 1, 0]
CORONAL = [1, 0, 0, 0, 0, -1]  # whose normal is the y axis


def write_slice(path: Path, series: str | None, value: int, **facts) -> None:
    """Write a file of one frame of 8 x 8 px, all of one number."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{value}"
    head = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    head.Rows = head.Columns = 8
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 16, 16, 15, 0
    head.PixelData = np.full((8, 8), value, np.uint16).tobytes()
    if series is not None:
        head.SeriesInstanceUID = series
    for key, fact in facts.items():
        setattr(head, key, fact)
    path.parent.mkdir(parents=True, exist_ok=True)
    head.save_as(path, enforce_file_format=True)


@pytest.fixture
def two_series(tmp_path) -> Path:
    """A folder with two interleaved series whose files and numbers run against the positions."""
    folder = tmp_path / "scans"
    for number in range(4):
        series, value = ("1.2.8", 80) if number % 2 else ("1.2.7", 70)
        for part, name in ((number // 2, f"IM{number}"), (number // 2 + 2, f"IM{number + 4}")):
            write_slice(
                folder / f"{name}.dcm",
                series,
                value + part,
                ImageOrientationPatient=AXIAL,
                ImagePositionPatient=[-5, 3, -2.5 * part],
                InstanceNumber=part + 1,
            )
    return folder


def numbers(source) -> list[int]:
    return [
        int(decode_raster(source.read(i), "a", source.number_in_file(i)).values[0, 0, 0])
        for i in range(len(source))
    ]


def test_two_series_of_a_folder_are_two_volumes_in_order_of_position(two_series):
    source = open_source(str(two_series), layout=Layout(1))
    assert numbers(source) == [73, 72, 71, 70, 83, 82, 81, 80]
    assert [source.key(index) for index in range(8)] == [
        "IM0#0001", "IM0#0002", "IM0#0003", "IM0#0004",
        "IM1#0001", "IM1#0002", "IM1#0003", "IM1#0004",
    ]  # fmt: skip
    assert source.name(0) == str(two_series / "IM6.dcm")
    assert [source.volume(index) for index in range(8)] == ["1.2.7"] * 4 + ["1.2.8"] * 4


def test_series_of_several_folders_stay_apart(two_series):
    write_slice(two_series / "more" / "IM0.dcm", "1.2.7", 90)
    write_slice(two_series / "more" / "IM1.dcm", "1.2.7", 91)
    source = open_source(str(two_series), layout=Layout(1))
    assert [source.key(index) for index in (8, 9)] == ["more/IM0#0001", "more/IM0#0002"]
    assert source.labels(9) == {"class": "more"}


def test_a_share_never_parts_a_series(two_series):
    source = open_source(str(two_series), layout=Layout(1))
    sizes = set()
    for share in (0.3, 0.5, 0.6):
        with suppress(DataError):  # a share may leave one part empty
            training, validation = split_off(source, share)
            parts = [{each.volume(i) for i in range(len(each))} for each in (training, validation)]
            assert not parts[0] & parts[1]
            sizes.add((len(training), len(validation)))
    assert sizes == {(4, 4)}
    groups = FileGroups(source)
    assert [groups.group_of(index) for index in range(8)] == ["1.2.7"] * 4 + ["1.2.8"] * 4


def test_shards_keep_order_and_volumes(two_series, command, tmp_path):
    out = tmp_path / "shards"
    done = command("data", "build", two_series, "--bands", 1, "--out", out)
    assert done.code == 0, done.err
    shards = ShardSource(str(out / "*.tar"), suffixes=RASTER_SUFFIXES)
    assert numbers(shards) == [73, 72, 71, 70, 83, 82, 81, 80]
    assert len({shards.volume(index) for index in range(8)}) == 2


def test_planes_of_any_direction_are_ordered_along_their_normal(tmp_path):
    for number, y_mm in enumerate([30, 10, 20]):
        write_slice(
            tmp_path / f"{number}.dcm",
            "1.2.9",
            number,
            ImageOrientationPatient=CORONAL,
            ImagePositionPatient=[0, y_mm, 100 * number],
        )
    assert numbers(open_source(str(tmp_path), layout=Layout(1))) == [1, 2, 0]


@pytest.mark.parametrize(
    "facts",
    [
        lambda n: {"InstanceNumber": 9 - n},
        lambda n: {"SliceLocation": -2.5 * n},
        lambda n: {"ImageOrientationPatient": AXIAL, "InstanceNumber": 9 - n},
    ],
)
def test_without_positions_locations_and_numbers_decide(tmp_path, facts):
    for number in range(3):
        write_slice(tmp_path / f"{number}.dcm", "1.2.9", number, **facts(number))
    assert numbers(open_source(str(tmp_path), layout=Layout(1))) == [2, 1, 0]


@pytest.mark.parametrize("damaged", [{"InstanceNumber": "x"}, {"SliceLocation": "?"}])
def test_a_damaged_number_does_not_take_the_position_with_it(damaged):
    head = SimpleNamespace(
        SeriesInstanceUID="1.2",
        ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[0, 0, 7.5],
        **damaged,
    )
    head.get = lambda name: getattr(head, name, None)
    assert _place_of(head).position_mm == 7.5


def test_files_without_a_series_stay_images_of_their_own(tmp_path):
    for number in range(2):
        write_slice(tmp_path / f"{number}.dcm", None, number, InstanceNumber=9 - number)
    write_slice(tmp_path / "2.dcm", "1.2.9", 2)  # alone in its series
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM")
    source = open_source(str(tmp_path), layout=Layout(1))
    assert [source.key(index) for index in range(4)] == ["0", "1", "2", "broken"]
    assert source.volume(0) is None


def test_pairs_are_joined_by_the_names_of_files(two_series, tmp_path):
    low = tmp_path / "low"
    for number in range(7):  # the last one is missing
        series = "2.8" if number % 2 else "2.7"
        write_slice(low / f"IM{number}.dcm", series, number, InstanceNumber=9 - number)
    pairing = Pairing(str(low), Layout(1))
    source = open_source(str(two_series), layout=Layout(1), pairing=pairing)
    assert [source.key(index) for index in range(8)] == [f"IM{number}" for number in range(8)]
    partners = source.partners
    assert partners is not None
    assert partners.indices == [*range(7), None]
    assert source.volume(0) == "1.2.7"
