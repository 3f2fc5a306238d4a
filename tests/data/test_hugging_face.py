"""Data sets of the library `datasets`, made on the spot."""

from __future__ import annotations

import io
import re
import sys

import pytest
from huggingface_hub import constants
from PIL import Image

from cascade.data.hugging_face import HuggingFaceSource
from cascade.data.sources import open_source
from cascade.errors import DataError
from cascade.extras import install_command


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    pytest.importorskip("datasets.config")  # which a folder of that name does not have
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # read from the environment once
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features(
        {
            "id": datasets.Value("int64"),
            "picture": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
        }
    )
    rows = {
        "id": [0, 1, 2],
        "picture": [{"bytes": png(side), "path": None} for side in (1, 2, 3)],
        "label": [1, 0, -1],
        "caption": ["a dog", None, "what?"],
    }
    return datasets.Dataset.from_dict(rows, features=features)


LABELS = [{"label": "dog", "caption": "a dog"}, {"label": "cat"}, {"caption": "what?"}]


def check(source, count: int = 3) -> None:
    assert isinstance(source, HuggingFaceSource)
    assert [source.read(index) for index in range(len(source))] == [
        png(i + 1) for i in range(count)
    ]
    assert [source.labels(index) for index in range(len(source))] == LABELS[:count]


def test_a_saved_data_set_gives_its_bytes_and_its_labels_by_name(dataset, tmp_path):
    dataset.save_to_disk(str(tmp_path / "saved"))
    source = open_source(f"hf:{tmp_path / 'saved'}")
    check(source)
    assert source.vocabulary(["label"]) == {"label": ["cat", "dog"]}
    only = open_source(f"hf:{tmp_path / 'saved'}", only={"label": ["cat"]})
    assert [only.read(index) for index in range(len(only))] == [png(2)]


def test_a_parquet_file_is_read_too(dataset, tmp_path):
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    check(open_source(f"hf:{tmp_path / 'a.parquet'}"))


def test_a_split_is_chosen_by_name_and_is_train_by_default(dataset, tmp_path):
    pytest.importorskip("datasets.config")  # which a folder of that name does not have
    import datasets

    splits = {"test": dataset.select([0]), "train": dataset}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    check(open_source(f"hf:{tmp_path / 'saved'}"))
    check(open_source(f"hf:{tmp_path / 'saved'}:test"), 1)
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        open_source(f"hf:{tmp_path / 'saved'}:tset")


def test_data_without_images_and_data_that_are_not_there(dataset, tmp_path):
    dataset.remove_columns("picture").save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="no column of type Image; it has id, label, caption"):
        open_source(f"hf:{tmp_path / 'saved'}")
    with pytest.raises(DataError, match="hf:no/such: cannot be loaded") as error:
        open_source("hf:no/such")
    assert "\n" not in str(error.value)


def test_paths_in_a_data_set_are_read_if_they_are_plain_files(dataset, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    paths = [str(tmp_path / "a.png"), "/dev/zero", str(tmp_path / "missing.png")]
    rows = [{"bytes": None, "path": path} for path in paths]
    feature = dataset.features["picture"]
    changed = dataset.remove_columns("picture").add_column("picture", rows, feature=feature)
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(changed.data.table, tmp_path / "b.parquet")  # to_parquet puts bytes in
    source = open_source(f"hf:{tmp_path / 'b.parquet'}")
    assert source.read(0) == png(1)
    with pytest.raises(DataError, match=r"b\.parquet\[1\]: not a regular file"):
        source.read(1)
    with pytest.raises(DataError, match=r"b\.parquet\[2\]: cannot be read"):
        source.read(2)


def test_without_the_library_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=re.escape(install_command("hf"))):
        open_source("hf:no/such")
