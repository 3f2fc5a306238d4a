"""Objects that restore batches: they travel light, and give what the commands give."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from cascade import Colouriser, Restorer, Upscaler
from cascade.bulk import preparing
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, ContractError, WeightsError
from cascade.mapping import models
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


def test_files_are_those_that_the_command_writes(command, enlarging, scans, batch_of, tmp_path):
    upscaler = Upscaler(enlarging, scale=1.5, steps=3, seed=4, root=scans)
    result = upscaler(batch_of(scans))
    out = tmp_path / "out"
    command(
        "upscale", scans, "-o", out, "--model", enlarging,
        "--scale", 1.5, "--steps", 3, "--seed", 4,
    )  # fmt: skip
    assert list(result["name"]) == ["a.png", "b.jpg", "broken.png", "sub/c.png", "sub/d.webp"]
    for name, data in zip(result["name"], result["bytes"], strict=True):
        if name != "broken.png":
            assert data == (out / name).read_bytes(), name
    assert result["bytes"][2] is None
    assert [bool(each) for each in result["error"]] == [False, False, True, False, False]
    assert result["error"][2].startswith("not a readable image")


def test_arrays_are_the_pixels_that_the_command_writes(command, enlarging, scans, tmp_path):
    pixels = np.asarray(Image.open(scans / "a.png"))
    result = Upscaler(enlarging, seed=4)({"image": pixels[None], "id": np.array([7])})
    command("upscale", scans / "a.png", "-o", tmp_path / "a.png", "--model", enlarging, "--seed", 4)
    assert np.array_equal(result["image"][0], np.asarray(Image.open(tmp_path / "a.png")))
    assert result["id"].tolist() == [7]


def test_a_result_does_not_depend_on_the_batch(enlarging, scans, batch_of):
    upscaler, batch = Upscaler(enlarging), batch_of(scans)
    whole = upscaler(batch)
    for number in (0, 1, 3, 4):
        alone = upscaler({name: column[number : number + 1] for name, column in batch.items()})
        assert alone["bytes"][0] == whole["bytes"][number]


def test_colouriser_and_upscaler_follow_each_other(
    command, colouring, enlarging, scans, batch_of, tmp_path
):
    coloured = Colouriser(colouring, root=scans)(batch_of(scans))
    result = Upscaler(enlarging)(coloured)
    command("colourise", scans, "-o", tmp_path / "grey", "--model", colouring, "--recolour")
    command("upscale", tmp_path / "grey", "-o", tmp_path / "out", "--model", enlarging)
    for name, data in zip(result["name"], result["bytes"], strict=True):
        if name != "broken.png":
            assert data == (tmp_path / "out" / name).read_bytes()
    assert result["error"][2] == coloured["error"][2] != ""


def test_a_restorer_gives_what_the_pipeline_gives(restorer, tmp_path, scans):
    pipeline = CascadePipeline.from_stages({"restorer": restorer})
    pipeline.save_pretrained(tmp_path / "model")
    pixels = np.asarray(Image.open(scans / "a.png"))
    (result,) = Restorer(tmp_path / "model", steps=2)({"image": [pixels]})["image"]
    assert np.array_equal(result, pipeline.restore(pixels, steps=2))


def test_only_name_and_settings_travel(enlarging, scans, batch_of):
    upscaler = Upscaler(enlarging, scale=2, steps=2)
    before = pickle.dumps(upscaler)
    expected = upscaler(batch_of(scans))["bytes"][0]
    assert pickle.dumps(upscaler) == before
    assert len(before) < 1500
    assert pickle.loads(before)(batch_of(scans))["bytes"][0] == expected


def test_a_process_loads_a_model_once(enlarging, scans, batch_of, monkeypatch):
    models.kept_model.cache_clear()
    loads = []
    real = models.load_model
    monkeypatch.setattr(models, "load_model", lambda each: loads.append(each.model) or real(each))
    upscaler, batch = Upscaler(enlarging), batch_of(scans)
    threads = [
        threading.Thread(target=pickle.loads(pickle.dumps(upscaler)), args=(batch,))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == [str(enlarging)]


def test_weights_are_hashed_once_for_many_batches(enlarging, scans, batch_of, monkeypatch):
    models.kept_model.cache_clear()
    hashes = []
    real = preparing.stages_digest
    monkeypatch.setattr(preparing, "stages_digest", lambda *each: hashes.append(1) or real(*each))
    upscaler = Upscaler(enlarging)
    results = [upscaler(batch_of(scans))["bytes"].tolist() for _ in range(3)]
    assert len(hashes) == 1
    assert results[0] == results[1] == results[2]
    Upscaler(enlarging, seed=1)(batch_of(scans))
    assert len(hashes) == 2


def test_a_model_is_freed_when_others_take_its_place(enlarging, colouring, scans, batch_of):
    models.kept_model.cache_clear()
    Upscaler(enlarging)(batch_of(scans))
    pipeline = weakref.ref(models.kept_model(Upscaler(enlarging)._model).pipeline)
    for device in ("cpu", "cpu:0"):
        models.kept_model(Colouriser(colouring, device=device)._model)
    gc.collect()
    assert pipeline() is None


def test_a_folder_is_found_from_any_working_folder(enlarging, scans, monkeypatch, tmp_path):
    monkeypatch.chdir(enlarging.parent)
    upscaler = Upscaler(enlarging.name, out="out")
    monkeypatch.chdir(tmp_path)
    result = upscaler({"path": [str(scans / "a.png")]})
    assert result["error"].tolist() == [""]
    assert (enlarging.parent / "out" / "a.png").is_file()
    assert "bytes" not in result


# ---- results that are written -------------------------------------------------------------------


def test_results_in_a_store_are_made_once(enlarging, scans, tmp_path):
    upscaler = Upscaler(enlarging, root=scans, out=tmp_path / "out")
    batch = {"path": [str(scans / "a.png"), str(scans / "sub" / "c.gif")]}
    upscaler(batch)
    files = [tmp_path / "out" / "a.png", tmp_path / "out" / "sub" / "c.png"]
    stamps = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    assert upscaler(batch)["error"].tolist() == ["", ""]
    assert files[0].stat().st_mtime_ns == stamps[0]
    assert files[1].stat().st_mtime_ns > stamps[1]


def test_results_of_bands_in_a_store_are_made_once_where_their_format_has_a_record(tmp_path):
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=16, channels=2, range=(0, 1000)), (LowResolution(size_px=8),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    CascadePipeline.from_stages({"up": stage}).save_pretrained(tmp_path / "bands-x2")
    values = np.arange(2 * 8 * 10, dtype=np.uint16).reshape(2, 8, 10)
    np.savez(tmp_path / "a.npz", image=values)
    np.save(tmp_path / "b.npy", values)
    upscaler = Upscaler(tmp_path / "bands-x2", out=tmp_path / "out")
    stamps = []
    for _ in range(2):
        batch = {"path": [str(tmp_path / "a.npz"), str(tmp_path / "b.npy")]}
        assert upscaler(batch)["error"].tolist() == ["", ""]
        stamps.append([(tmp_path / "out" / n).stat().st_mtime_ns for n in ("a.npz", "b.npy")])
    assert stamps[0][0] == stamps[1][0]
    assert stamps[0][1] < stamps[1][1]


def test_a_store_in_memory_is_read_and_written(command, enlarging, scans, memory_store, tmp_path):
    memory_store.pipe("/in/x/a.png", (scans / "a.png").read_bytes())
    upscaler = Upscaler(enlarging, root="memory://in", out="memory://large")
    for _ in range(2):
        assert upscaler({"path": ["memory://in/x/a.png"]})["error"].tolist() == [""]
    command("upscale", scans / "a.png", "-o", tmp_path / "a.png", "--model", enlarging)
    assert memory_store.cat("/large/x/a.png") == (tmp_path / "a.png").read_bytes()


def test_a_result_never_takes_the_place_of_another(enlarging, scans, batch_of, tmp_path):
    Image.new("RGB", (9, 9)).save(scans / "a.gif")
    a_png, a_gif = str(scans / "a.png"), str(scans / "a.gif")
    upscaler = Upscaler(enlarging, out=tmp_path / "out")
    together = upscaler({"path": [a_gif, a_png]})["error"]
    assert together[0] == ""
    assert together[1].startswith("the result of another image is called a.png too")
    later = upscaler({"path": [a_png]})["error"][0]
    assert later.startswith("a.png already exists and was made from another input of that name")
    other = Upscaler(enlarging, out=tmp_path / "out", seed=1)({"path": [a_gif]})["error"][0]
    assert "was made with seed=0 (now 1)" in other
    replaced = Upscaler(enlarging, out=tmp_path / "out", seed=1, overwrite=True)
    assert replaced({"path": [a_gif]})["error"].tolist() == [""]


def test_a_broken_picture_takes_no_name_from_a_good_one(enlarging, scans, memory_store):
    batch = {"name": ["a.png", "a.png"], "bytes": [b"broken", (scans / "a.png").read_bytes()]}
    errors = Upscaler(enlarging, out="memory://out")(batch)["error"]
    assert errors[0].startswith("not a readable image")
    assert errors[1] == ""
    assert memory_store.isfile("/out/a.png")


@pytest.mark.parametrize("settings", [{"metadata": False}, {"overwrite": True}])
def test_a_result_never_replaces_an_original(enlarging, scans, settings):
    path, before = scans / "a.png", (scans / "a.png").read_bytes()
    upscaler = Upscaler(enlarging, out=f"file://{scans}", **settings)
    (scans / "link").symlink_to(scans)
    for name in (path, scans / "link" / "a.png", f"file:{path}"):
        result = upscaler({"path": [str(name)], "bytes": [before]})
        assert result["error"][0].startswith("the result would replace the image a.png itself")
        assert path.read_bytes() == before
    for root in (str(scans), "memory://in"):
        with pytest.raises(ContractError, match="out and root are both"):
            Upscaler(enlarging, root=root, out=f"{root}/", **settings)


def test_a_result_never_replaces_an_original_of_a_store(enlarging, scans, memory_store):
    data = (scans / "a.png").read_bytes()
    memory_store.pipe("/in/a.png", data)
    upscaler = Upscaler(enlarging, out="memory://in", overwrite=True)
    for path in ("memory://in/a.png", "memory:///in/a.png", "in/a.png"):
        result = upscaler({"path": [path], "bytes": [data]})
        assert result["error"][0].startswith("the result would replace the image a.png itself")
        assert memory_store.cat("/in/a.png") == data


def test_results_go_to_a_folder_with_a_scheme(enlarging, scans, tmp_path):
    upscaler = Upscaler(enlarging, out=f"file://{tmp_path}/out")
    assert upscaler({"path": [str(scans / "a.png")]})["error"].tolist() == [""]
    assert upscaler._out == str(tmp_path / "out")
    assert (tmp_path / "out" / "a.png").is_file()


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepz": 3}, "unknown argument 'stepz': did you mean 'steps'"),
        ({"num_inference_steps": 3}, "use steps"),
        ({"scale": 0.5}, "scale must be above 1"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": {"upsampler": "many"}}, "steps must be a whole number"),
        ({"temperature": [0.5, 2]}, "temperature must be from 0 to 1, got 2"),
        ({"range": (5, 3)}, "the range must be two numbers"),
        ({"range": 5}, "the range must be two numbers .*, got 5"),
        ({"range": (0,)}, "the range must be two numbers"),
        ({"range": ("a", 3)}, "range must be a whole number, got 'a'"),
        ({"axis": "x"}, "axis must be a whole number"),
        ({"nodata": "x"}, "nodata must be a number"),
        ({"seed": 0.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"adapters": ["x"]}, "adapters must be pairs such as .*, got 'x'"),
        ({"adapters": [("x", "y")]}, "the factor of an adapter must be a number, got 'y'"),
        ({"root": 5}, "root must be a folder or address, got 5"),
        ({"out": 5}, "out must be a folder or address, got 5"),
        ({"column": 5}, "column must be the name of a column, got 5"),
        ({"device": "nonsense"}, "device must be cpu, cuda.*, got 'nonsense'"),
        ({"engine": "nonsense"}, "engine must be openvino or a folder.*, got 'nonsense'"),
        ({"pages": "some"}, "pages must be one of all, first, got 'some'"),
        ({"metadata": 1}, "metadata must be True or False, got 1"),
        ({"overwrite": True}, "give out too"),
        ({"out": "nowhere://x"}, "Protocol not known: nowhere"),
        ({"engine": "openvino", "device": "cpu"}, "give only one of them"),
    ],
)
def test_settings_are_checked_at_once(enlarging, settings, message):
    with pytest.raises(CascadeError, match=message) as error:
        Upscaler(enlarging, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["photo-x5", "/nowhere/model"])
def test_a_model_that_does_not_exist_is_named_at_once(name):
    with pytest.raises(WeightsError, match=name):
        Upscaler(name)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": [1]}, "the batch has no column bytes, content, image or path; it has x"),
        ({"bytes": [b"1"]}, "files need their names in a column name or path"),
        ({"bytes": [b"1"], "path": []}, "must have one length, got {'bytes': 1, 'path': 0}"),
        ({"bytes": [b"1"], "image": [2]}, "images in bytes and image; name one with column"),
        ({"image": np.zeros((4, 5, 3), np.uint8)}, "must hold images \\(B, H, W, C\\)"),
        ({"image": ["a.png"]}, "open the file first"),
        ([1], "a batch must be a dictionary of columns, got list"),
        ({"path": "many/0.png"}, "column 'path' must be a list or array .*, got 'many/0.png'"),
        ({"path": ["a.png"], "bytes": b"1"}, "column 'bytes' must be a list or array"),
        ({"path": 5}, "column 'path' must be a list or array .*, got 5"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(enlarging, batch, message):
    with pytest.raises(ContractError, match=message):
        Upscaler(enlarging)(batch)


def test_settings_of_files_are_refused_for_arrays(enlarging):
    image = np.zeros((1, 9, 9, 3), np.uint8)
    with pytest.raises(ContractError, match="image_format is for files, but column 'image' holds"):
        Upscaler(enlarging, image_format="png")({"image": image})
    with pytest.raises(ContractError, match="out is for files"):
        Upscaler(enlarging, out="large")({"image": image})


@pytest.mark.parametrize("name", ["../a.png", "", "a/.."])
def test_a_name_that_leads_elsewhere_fails_alone(enlarging, scans, name):
    data = (scans / "a.png").read_bytes()
    result = Upscaler(enlarging)({"name": [name, "b.png"], "bytes": [data, data]})
    assert "is not the name of an image" in result["error"][0]
    assert result["error"][1] == ""


def test_a_missing_file_fails_alone(enlarging, scans):
    paths = [str(scans / "none.png"), str(scans / "a.png")]
    result = Upscaler(enlarging)({"path": paths})
    assert result["error"].tolist() == [f"{paths[0]}: no such file or folder.", ""]
    wrong = Upscaler(enlarging)({"path": ["github://u:secret@x/b.png", paths[1]]})
    assert wrong["error"][0].startswith("github://x/b.png: ")
    assert wrong["error"][1] == ""


def test_constructing_loads_no_model(enlarging):
    models.kept_model.cache_clear()
    pickle.loads(pickle.dumps(Upscaler(enlarging, steps=2)))
    assert models.kept_model.cache_info().currsize == 0
