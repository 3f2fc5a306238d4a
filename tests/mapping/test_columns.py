"""Columns that engines give and take."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cascade import Upscaler
from cascade.errors import DataError
from cascade.mapping.columns import Columns, column_of, place_of


@pytest.mark.parametrize(
    ("name", "root", "place"),
    [
        ("a/b.png", None, "a/b.png"),
        ("/scans/a/b.png", None, "b.png"),
        ("s3://bucket/a/b.png", None, "b.png"),
        ("/scans/a/b.png", "/scans/", "a/b.png"),
        ("s3://bucket/a/b.png", "s3://bucket", "a/b.png"),
        ("bucket/a/b.png", "s3://bucket", "a/b.png"),  # as Ray Data names objects
        ("memory:///x/b.png", "memory:///x", "b.png"),
        ("file:/scans/a/b.png", "/scans", "a/b.png"),  # as Spark names files
        ("file:///scans/a/b.png", "/scans", "a/b.png"),
        ("file:/scans/a/b.png", None, "b.png"),
        ("https://host/a/b.png?token=secret/1", None, "b.png"),
        ("https://host/a/b.png?token=secret", "https://host", "a/b.png"),
    ],
)
def test_results_keep_the_folders_below_a_root(name, root, place):
    assert str(place_of(name, root)) == place


def test_a_picture_outside_the_root_is_refused():
    with pytest.raises(DataError, match=r"/other/a\.png does not lie below /scans"):
        place_of("/other/a.png", "/scans")


def test_relative_paths_lie_below_a_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(place_of("ph/1890/a.png", f"{tmp_path}/ph", is_path=True)) == "1890/a.png"
    assert str(place_of("ph/1890/a.png", None, is_path=True)) == "a.png"


def test_messages_name_addresses_without_secrets():
    with pytest.raises(DataError, match=r"^s3://x/a\.png does not lie below s3://y\.$"):
        place_of("s3://user:secret@x/a.png?token=secret", "s3://user:secret@y")


def test_bytes_keep_zeros_at_their_end():
    column = column_of([b"a\0", b"", None])
    assert column.dtype == object
    assert column.tolist() == [b"a\0", b"", None]


def test_arrays_of_one_shape_are_stacked():
    one, other = np.zeros((2, 3, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    assert column_of([one, one]).shape == (2, 2, 3, 3)
    assert [each.shape for each in column_of([one, other])] == [one.shape, other.shape]


def test_a_frame_of_pandas_goes_in_and_out(enlarging, scans):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"path": [str(scans / "a.png")], "content": [(scans / "a.png").read_bytes()], "id": [4]}
    )
    result = pandas.DataFrame(Upscaler(enlarging)(dict(frame)))
    assert result["id"].tolist() == [4]
    assert result["error"].tolist() == [""]
    assert result["content"][0].startswith(b"\x89PNG")


def test_an_empty_cell_of_a_table_is_no_failure(enlarging, scans):
    data = (scans / "a.png").read_bytes()
    errors = [float("nan"), None, "", "cannot be read."]
    batch = {"name": ["a.png", "b.png", "c.png", "d.png"], "bytes": [data] * 4, "error": errors}
    assert Upscaler(enlarging)(batch)["error"].tolist() == ["", "", "", "cannot be read."]


def test_rows_of_arrays_that_failed_before_get_no_result(enlarging, scans):
    upscaler, pixels = Upscaler(enlarging, steps=2), np.asarray(Image.open(scans / "a.png"))
    (alone,) = upscaler({"image": [pixels]})["image"]
    errors = ["", "cannot be read.", "no picture."]
    result = upscaler({"image": [pixels, None, pixels], "error": errors})
    assert result["error"].tolist() == errors
    assert np.array_equal(result["image"][0], alone)
    assert result["image"][1] is None
    assert result["image"][2] is None
    failed = upscaler({"image": [pixels], "error": ["no picture."]})
    assert failed["image"].tolist() == [None]


def test_the_columns_of_an_empty_batch_stay(enlarging):
    result = Upscaler(enlarging)({"path": [], "bytes": []})
    assert sorted(result) == ["bytes", "error", "name", "path"]
    assert Columns.read({}).listing() == "none"
