"""The ComfyUI nodes of docs/integrations, without ComfyUI: its picture layout, its progress bar."""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import pytest
import torch

from cascade.errors import CascadeError
from cascade.pipeline import CascadePipeline

FILE = Path(__file__).parents[2] / "docs" / "integrations" / "comfyui" / "cascade_nodes.py"


@pytest.fixture
def nodes() -> dict:
    """The names of the file, as ComfyUI imports it."""
    return runpy.run_path(str(FILE))


@pytest.fixture
def pictures() -> torch.Tensor:
    """Two pictures (2, 16, 24, 3) in [0, 1], as ComfyUI has them."""
    return torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(0))


def run(nodes: dict, name: str, **values) -> torch.Tensor:
    """Call a node as ComfyUI does: by the name of its function, with every input by name."""
    node = nodes["NODE_CLASS_MAPPINGS"][name]
    inputs = node.INPUT_TYPES()["required"]
    defaults = {key: options["default"] for key, (_, *rest) in inputs.items() for options in rest}
    assert set(values) <= set(inputs)
    (result,) = getattr(node(), node.FUNCTION)(**defaults | values)
    assert node.RETURN_TYPES == ("IMAGE",)
    return result


def test_every_node_has_a_title(nodes):
    assert set(nodes["NODE_CLASS_MAPPINGS"]) == set(nodes["NODE_DISPLAY_NAME_MAPPINGS"])
    assert all(node.CATEGORY.startswith("image") for node in nodes["NODE_CLASS_MAPPINGS"].values())


def test_upscaling_gives_what_the_pipeline_gives(nodes, upsampler, pictures, tmp_path):
    pipeline = CascadePipeline.from_stages({"upsampler": upsampler})
    pipeline.save_pretrained(tmp_path / "x2")
    result = run(
        nodes, "CascadeUpscale", image=pictures, model=str(tmp_path / "x2"), seed=5, steps=2
    )
    assert result.shape == (2, 32, 48, 3)
    assert result.dtype == torch.float32
    assert 0 <= float(result.min()) < float(result.max()) <= 1
    expected = pipeline.upscale(pictures.permute(0, 3, 1, 2) * 2 - 1, seed=5, steps=2)
    assert torch.allclose(result.permute(0, 3, 1, 2) * 2 - 1, expected, atol=1e-6)
    transparent = torch.cat([pictures, torch.ones(2, 16, 24, 1)], dim=-1)
    line = {"model": str(tmp_path / "x2"), "seed": 5, "steps": 2}
    assert torch.equal(run(nodes, "CascadeUpscale", image=transparent, **line), result)
    larger = run(nodes, "CascadeUpscale", image=pictures[:1], scale=1.5, **line)
    assert larger.shape == (1, 24, 36, 3)


def test_colouring_keeps_the_size(nodes, colouriser, pictures, tmp_path):
    pipeline = CascadePipeline.from_stages({"colouriser": colouriser})
    pipeline.save_pretrained(tmp_path / "colours")
    line = {"image": pictures, "model": str(tmp_path / "colours"), "seed": 1, "steps": 1}
    result = run(nodes, "CascadeColourise", **line)
    expected = pipeline.colourise(pictures.permute(0, 3, 1, 2) * 2 - 1, seed=1, steps=1)
    assert torch.allclose(result.permute(0, 3, 1, 2) * 2 - 1, expected, atol=1e-6)


def test_the_bar_of_comfyui_moves_and_cancels(nodes, upsampler, pictures, tmp_path, monkeypatch):
    CascadePipeline.from_stages({"upsampler": upsampler}).save_pretrained(tmp_path / "x2")
    moves = []

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total=None, preview=None):
            moves.append((value, total))
            if len(moves) == 4:
                raise InterruptedError

    utils = types.ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar
    monkeypatch.setitem(sys.modules, "comfy", types.ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    line = {"image": pictures[:1], "model": str(tmp_path / "x2"), "steps": 1}
    run(nodes, "CascadeUpscale", **line)
    done, total = moves[-1]
    assert done == total > 0
    with pytest.raises(InterruptedError):
        run(nodes, "CascadeUpscale", **line | {"steps": 9})


def test_a_model_that_is_not_there_is_one_line(nodes, pictures):
    with pytest.raises(CascadeError) as caught:
        run(nodes, "CascadeUpscale", image=pictures, model="nosuch-model")
    assert "\n" not in str(caught.value)
