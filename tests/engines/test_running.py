"""Engines and exports that are refused before a network is read, with or without the extra."""

from __future__ import annotations

import copy
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from cascade import __version__
from cascade.chain import StageChain
from cascade.engines.exporting import RECORD, network_digest
from cascade.engines.running import with_engine
from cascade.errors import ContractError, WeightsError
from cascade.pipeline import CascadePipeline


@pytest.fixture(autouse=True)
def installed(monkeypatch) -> None:
    """OpenVINO can be found: nothing here gets so far as to use it."""
    module = ModuleType("openvino")
    module.__spec__ = ModuleSpec("openvino", None)
    monkeypatch.setitem(sys.modules, "openvino", module)


@pytest.fixture
def stages(cascade) -> StageChain:
    return cascade.stages


@pytest.fixture
def folder(stages, tmp_path) -> Path:
    """The record of an export of these stages, which is read before the networks."""
    exported = {
        name: {"file": f"{name}.xml", "inputs": [], "weights": network_digest(stage)}
        for name, stage in stages.items()
    }
    record = {"format": "openvino", "version": __version__, "stages": exported}
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / RECORD).write_text(json.dumps(record))
    return tmp_path / "exported"


def change(folder: Path, **values) -> None:
    file = folder / RECORD
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_an_export_of_another_version_is_refused(stages, folder):
    change(folder, version="0.0.9")
    with pytest.raises(ContractError, match=r"exported by version 0\.0\.9 of Cascade, and this is"):
        with_engine(stages, str(folder))


def test_an_export_to_another_format_is_refused(stages, folder):
    change(folder, format="onnx")
    with pytest.raises(ContractError, match="was exported to onnx, which Cascade does not run"):
        with_engine(stages, str(folder))


def test_an_export_of_other_weights_is_refused(stages, folder):
    changed = copy.deepcopy(stages)
    changed["upsampler"].network.backbone.conv_in.bias.data += 1e-3
    with pytest.raises(ContractError, match="holds other weights of stage 'upsampler'"):
        with_engine(changed, str(folder))


def test_an_export_of_another_pipeline_is_refused(colouriser, folder):
    colouring = CascadePipeline.from_stages({"colours": colouriser})
    with pytest.raises(ContractError, match="holds no weights of stage 'colours'"):
        colouring.with_engine(str(folder))


def test_a_record_that_is_damaged_or_missing_is_refused(stages, folder):
    change(folder, stages=None)
    with pytest.raises(WeightsError, match="names no stages; export the pipeline again"):
        with_engine(stages, str(folder))
    (folder / RECORD).unlink()
    with pytest.raises(WeightsError, match="is missing or unreadable"):
        with_engine(stages, str(folder))


def test_an_unknown_engine_is_refused(stages):
    with pytest.raises(ContractError, match="engine must be 'openvino' or a folder of cascade exp"):
        with_engine(stages, "tensorrt")


def test_an_engine_without_its_extra_is_refused(stages, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for engine in ("openvino", str(folder)):
        with pytest.raises(
            ContractError, match=r"is not installed; run pip install .*\[openvino\]"
        ):
            with_engine(stages, engine)


@pytest.mark.parametrize(
    ("engine_format", "module"),
    [("onnx", "onnx"), ("onnx", "onnxscript"), ("openvino", "openvino")],
)
def test_an_export_without_its_extra_is_refused(
    command, cascade, monkeypatch, tmp_path, engine_format, module
):
    for name in ("onnx", "onnxscript"):  # as if the others were there
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module, None)
    cascade.save_pretrained(tmp_path / "saved")
    out = tmp_path / "out"
    done = command("export", tmp_path / "saved", "--format", engine_format, "-o", out)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        f"cascade: the format {engine_format} needs packages that are not installed; run pip inst"
    )
    assert f"[{engine_format}]" in done.err
    assert not out.exists()
