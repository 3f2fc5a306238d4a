"""Exported networks predict what the originals predict, and belong to their weights alone."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_autoencoders import IdentityAutoencoder
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.engines import exporting, running
from cascade.engines.exporting import RECORD, export_networks
from cascade.engines.running import with_engine
from cascade.errors import ContractError, OutputError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.restoration.expected_error import model_digest
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.space import Space
from cascade.stage import Run

pytest.importorskip("openvino")
LARGEST_ERROR = 1e-4  # of the root mean square; one per cent is promised


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own, in place of the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def pipeline(_stages, fill_zeros) -> CascadePipeline:
    """A base stage of one level, since exports take long, and an upsampler of two."""
    upsampler = copy.deepcopy(_stages["upsampler"])
    labels, _ = upsampler.conditions
    torch.manual_seed(0)
    base = DiffusionStage.build(
        Contract(Space(size_px=16), (labels,)),
        upsampler.process,
        embedding_dim=16,
        network_options={"channels": (8,), "blocks": 1},
    ).eval()
    made = CascadePipeline.from_stages({"base": fill_zeros(base), "upsampler": upsampler})
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def exported(pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "openvino"
    export_networks(pipeline.stages, "openvino", folder)
    return folder


@pytest.fixture
def other(exported, tmp_path) -> Path:
    """A copy of the exported folder, to damage."""
    return shutil.copytree(exported, tmp_path / "other")


def error(result: Tensor, expected: Tensor) -> float:
    difference = (result - expected).double().square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


# ---- the same pictures --------------------------------------------------------------------------


def test_a_pipeline_draws_the_same_images(pipeline, exported):
    engine = pipeline.with_engine(str(exported))
    engine.set_progress_bar_config(disable=True)
    options = {"seed": 0, "steps": 3, "guidance": 2.0, "output_type": "pt", "precision": "fp32"}
    for count in (1, 4):
        expected = pipeline(num_images=count, **options).images
        assert error(engine(num_images=count, **options).images, expected) < LARGEST_ERROR


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (65, 17)])
def test_pictures_of_other_sizes_are_upscaled_alike(pipeline, exported, size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    upscaling = Upscaling(precision="fp32", tile_px=64)
    stages = [pipeline.stages["upsampler"]]
    own = [with_engine(pipeline.stages, str(exported))["upsampler"]]
    expected = upscale_image(stages, image, upscaling)
    assert error(upscale_image(own, image, upscaling), expected) < LARGEST_ERROR


def test_bf16_rounds_as_much_as_in_torch(pipeline, exported):
    run = Run(stream="test", precision="bf16")
    inputs = Inputs({"labels": torch.tensor([[0, 1]])})
    exact = pipeline.stages["base"].run([0], inputs, run=Run(stream="test", precision="fp32"))
    own = with_engine(pipeline.stages, str(exported))["base"].run([0], inputs, run=run)
    rounded = pipeline.stages["base"].run([0], inputs, run=run)
    assert error(own, exact) < max(0.01, 3 * error(rounded, exact))


@pytest.mark.slow
def test_a_network_that_attends_to_text_predicts_the_same(drawing, tmp_path):
    export_networks(drawing.stages, "openvino", tmp_path / "text")
    engine = drawing.with_engine(str(tmp_path / "text"))
    engine.set_progress_bar_config(disable=True)
    options = {"seed": 0, "output_type": "pt", "precision": "fp32"}
    for prompt in (["a cat"], ["a dog on a chair", ""]):
        expected = drawing(prompt, **options).images
        assert error(engine(prompt, **options).images, expected) < LARGEST_ERROR


@pytest.mark.slow
def test_a_chain_of_latents_decodes_in_pytorch(base_stage, tmp_path):
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=16)).scaled(0, 1)
    contract = replace(base_stage.contract, space=decoder.latent_space)
    settings = base_stage.sampling.changed(threshold="none")
    latent = DiffusionStage(base_stage.network, base_stage.process, contract, sampling=settings)
    pipeline = CascadePipeline.from_stages({"latent": latent.eval(), "decoder": decoder})
    export_networks(pipeline.stages, "openvino", tmp_path / "latent")
    assert list(json.loads((tmp_path / "latent" / RECORD).read_text())["stages"]) == ["latent"]
    engine = pipeline.with_engine(str(tmp_path / "latent"))
    options = {"seed": 0, "steps": 2, "output_type": "pt", "precision": "fp32"}
    assert error(engine(**options).images, pipeline(**options).images) < LARGEST_ERROR
    with pytest.raises(ContractError, match="no stage of this pipeline samples in steps"):
        export_networks(CascadePipeline.from_stages({"d": decoder}).stages, "onnx", tmp_path / "d")


def test_onnx_files_predict_the_same(upsampler, tmp_path):
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    import openvino

    from cascade.engines.flat_network import example_inputs, gathered

    stages = CascadePipeline.from_stages({"upsampler": upsampler}).stages
    export_networks(stages, "onnx", tmp_path / "onnx")
    record = json.loads((tmp_path / "onnx" / RECORD).read_text())
    stage = stages["upsampler"]
    x_t, t, tensors = example_inputs(stage.network, 3, (48, 32), stage.contract.slots)
    x_t = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "onnx" / record["stages"]["upsampler"]["file"]
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = {"x_t": x_t, "t": t, **tensors}
    assert {port.get_any_name() for port in compiled.inputs} == set(values)
    result = compiled({name: each.numpy() for name, each in values.items()})[0]
    with torch.no_grad():
        expected = stage.network(x_t, t, gathered(tensors))
    assert error(torch.from_numpy(result), expected) < LARGEST_ERROR
    with pytest.raises(ContractError, match="was exported to onnx, which Cascade does not run"):
        with_engine(stages, str(tmp_path / "onnx"))


RELEASED = """
import os, signal, sys
from cascade import CascadePipeline

handled = []
signal.signal(signal.SIGINT, lambda *_: handled.append(True))
for _ in range(2):
    pipeline = CascadePipeline.from_pretrained(sys.argv[1]).with_engine(sys.argv[2])
    pipeline(steps=1, seed=0)
    del pipeline
    os.kill(os.getpid(), signal.SIGINT)
sys.exit(len(handled) != 2)
"""


def test_a_process_handles_signals_after_it_released_an_engine(saved, exported):
    # In a process of its own, since what can go wrong is a segmentation fault.
    words = [sys.executable, "-c", RELEASED, str(saved), str(exported)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)


# ---- a kept export ------------------------------------------------------------------------------


@pytest.fixture
def exports(exported, monkeypatch) -> Iterator[list[Path]]:
    """The folders of further exports, which are copies under the names of their chain."""
    folders = []

    def export(chain, engine_format, out: Path) -> None:
        folders.append(out)
        shutil.copytree(exported, out)
        record = json.loads((out / RECORD).read_text())
        stages = dict(zip(chain.names, record["stages"].values(), strict=True))
        (out / RECORD).write_text(json.dumps(record | {"stages": stages}))

    monkeypatch.setattr(running, "export_networks", export)
    return folders


def test_networks_are_exported_once_and_kept(pipeline, exports, cache):
    for _ in range(2):
        with_engine(pipeline.stages, "openvino")
    (folder,) = exports
    assert folder.is_relative_to(cache)


def test_the_same_weights_under_other_names_are_exported_again(pipeline, exports):
    stages = {"first": pipeline.stages["base"], "second": pipeline.stages["upsampler"]}
    renamed = CascadePipeline.from_stages(stages)
    for stages in (pipeline.stages, renamed.stages, pipeline.stages, renamed.stages):
        assert with_engine(stages, "openvino").names == stages.names
    assert len(set(exports)) == len(exports) == 2


# ---- bad input ----------------------------------------------------------------------------------


def test_a_damaged_export_is_refused(pipeline, other):
    (other / "base.xml").write_text("<net>")
    with pytest.raises(WeightsError, match=r"base\.xml is damaged or missing; export it again"):
        with_engine(pipeline.stages, str(other))


def test_half_precision_is_not_exported(base_stage, tmp_path):
    half = CascadePipeline.from_stages({"base": base_stage}).to(torch.bfloat16)
    with pytest.raises(ContractError, match="export a pipeline in float32 on the CPU"):
        export_networks(half.stages, "openvino", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", ["", "{}", '{"format": "onnx", "version": "1", "stages": []}'])
def test_files_of_a_user_are_not_replaced_although_they_are_named_as_ours(
    pipeline, tmp_path, record
):
    (tmp_path / "base.onnx").write_text("mine")
    if record:
        (tmp_path / RECORD).write_text(record)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"holds other things, such as base\.onnx, which would"):
        export_networks(pipeline.stages, "openvino", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.fixture
def quick_export(monkeypatch):
    """Export files without content, which is quick and needs no package."""
    monkeypatch.setattr(exporting, "_check_installed", lambda format: None)
    monkeypatch.setattr(exporting, "_export", lambda name, stage, save, file: file.write_text(""))


def test_an_earlier_export_is_replaced_whatever_its_stages_and_format(
    pipeline, other, quick_export
):
    assert (other / "upsampler.bin").is_file()
    chain = CascadePipeline.from_stages({"first": pipeline.stages["base"]}).stages
    export_networks(chain, "onnx", other)
    assert {path.name for path in other.iterdir()} == {RECORD, "first.onnx"}
    (other / "first.onnx.data").write_text("")
    export_networks(pipeline.stages, "openvino", other)
    assert {path.name for path in other.iterdir()} == {RECORD, "base.xml", "upsampler.xml"}


def test_an_export_with_a_file_of_the_user_beside_it_is_not_replaced(pipeline, other, quick_export):
    (other / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other things, such as notes\.txt"):
        export_networks(pipeline.stages, "openvino", other)
    assert (other / "notes.txt").read_text() == "mine"


def test_an_empty_folder_takes_an_export(pipeline, tmp_path, quick_export):
    export_networks(pipeline.stages, "onnx", tmp_path)
    assert (tmp_path / RECORD).is_file()


def test_steps_on_an_engine_share_no_features(pipeline, exported):
    stage = with_engine(pipeline.stages, str(exported))["upsampler"]
    expected = "reuse must be 1 for this network, got 2; the engine openvino runs whole networks"
    with pytest.raises(ContractError, match=expected):
        stage.check_settings(stage.sampling.changed(reuse=2))


def test_a_stage_on_an_engine_is_not_saved(pipeline, exported, tmp_path):
    engine = pipeline.with_engine(str(exported))
    with pytest.raises(WeightsError, match="a stage that runs on openvino cannot be saved"):
        engine.save_pretrained(tmp_path / "saved")


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


def test_generate_and_upscale_take_an_engine(command, saved, exported, tmp_path):
    done = command("generate", saved, "-o", tmp_path / "a", "--seed", 1, "--engine", exported)
    assert done.code == 0, done.err
    picture = tmp_path / "a" / "00000.png"
    done = command("upscale", picture, "-o", tmp_path / "b", "--model", saved, "--engine", exported)
    assert done.out == "1 upscaled\n"


def test_errors_that_were_measured_without_an_engine_are_not_those_of_a_model_on_one(
    saved, exported
):
    pipeline = CascadePipeline.from_pretrained(saved)
    stages = [stage for _, stage in pipeline.stages.items()]
    running = [stage for _, stage in pipeline.with_engine(str(exported)).stages.items()]
    assert model_digest(running) != model_digest(stages)


def test_an_engine_does_not_compute_on_an_accelerator(command, saved, exported, monkeypatch):
    monkeypatch.setattr("cascade.devices.find_device", torch.device)  # as if there were one
    options = ["-o", "out", "--engine", exported, "--device", "cuda"]
    for arguments in (["generate", saved], ["upscale", saved / "README.md", "--model", saved]):
        done = command(*arguments, *options)
        assert done.code == 1
        assert "cascade: engines compute on the CPU, got device 'cuda'" in done.err
    rehearsed = command(*arguments, *options, "--dry-run")
    assert (rehearsed.code, rehearsed.err) == (1, done.err)


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_dry_run_exports_nothing_and_knows_what_an_engine_did(
    command, saved, exports, cache, exported, tmp_path, is_folder
):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    engine = exported if is_folder else "openvino"
    options = ["-o", tmp_path / "out", "--model", saved, "--engine", engine]
    rehearsed = command("upscale", tmp_path / "a.png", *options, "--dry-run")
    assert rehearsed.code == 0, rehearsed.err
    assert rehearsed.out.splitlines()[-1] == "1 to be upscaled; nothing was written"
    assert exports == list(cache.iterdir()) == []
    assert command("upscale", tmp_path / "a.png", *options).out == "1 upscaled\n"
    again = command("upscale", tmp_path / "a.png", *options, "--dry-run")
    last = "0 to be upscaled, 1 already done; nothing was written"
    assert again.out.splitlines()[-1:] == [last], again.err


def test_a_dry_run_refuses_an_export_of_other_weights(command, saved, other, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    record = json.loads((other / RECORD).read_text())
    record["stages"]["base"]["weights"] = "0" * 64
    (other / RECORD).write_text(json.dumps(record))
    options = ["-o", tmp_path / "out", "--model", saved, "--engine", other, "--dry-run"]
    refused = command("upscale", tmp_path / "a.png", *options)
    assert refused.code == 1
    assert "holds other weights of stage 'base'" in refused.err


def test_export_says_what_it_wrote(command, saved, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        "cascade.engines.exporting.export_networks", lambda *call: calls.append(call)
    )
    done = command("export", saved, "--format", "onnx", "-o", tmp_path / "out")
    assert (done.code, done.out) == (0, f"2 networks in {tmp_path / 'out'}\n")
    assert calls[0][1:] == ("onnx", tmp_path / "out")


def test_export_counts_no_autoencoders(command, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.engines.exporting.export_networks", lambda *call: None)
    decoder = AutoencoderStage.build(
        Space(size_px=16), network="autoencoder_tiny", network_options={"width": 8, "levels": 1}
    ).scaled(0, 1)
    latent = DiffusionStage.build(
        Contract(decoder.latent_space),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        embedding_dim=16,
        network_options={"channels": (8,), "blocks": 1},
    )
    stages = {"latent": latent.eval(), "decoder": decoder.eval()}
    CascadePipeline.from_stages(stages).save_pretrained(tmp_path / "saved")
    done = command("export", tmp_path / "saved", "-o", tmp_path / "out")
    assert (done.code, done.out) == (0, f"1 network in {tmp_path / 'out'}\n"), done.err
