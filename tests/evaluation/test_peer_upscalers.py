"""Upscalers of other projects beside a pipeline: equal to an independent forward pass."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.errors import CascadeError, ContractError, WeightsError
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.peer_upscalers import PeerUpscaler, load_peers
from cascade.evaluation.real_pictures import RealPictures
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise, resize
from cascade.space import Space
from cascade.tasks.image_metrics import psnr

pytest.importorskip("spandrel")
CPU = torch.device("cpu")


def compact_weights(scale: int) -> dict[str, torch.Tensor]:
    """Random weights in the layout of a small SRVGGNetCompact, the network of realesr-general."""
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "body.0.weight": (8, 3, 3, 3), "body.0.bias": (8,), "body.1.weight": (8,),
        "body.2.weight": (8, 8, 3, 3), "body.2.bias": (8,), "body.3.weight": (8,),
        "body.4.weight": (3 * scale**2, 8, 3, 3), "body.4.bias": (3 * scale**2,),
    }  # fmt: skip
    return {name: 0.1 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def compact(weights: dict[str, torch.Tensor], image: torch.Tensor, scale: int) -> torch.Tensor:
    """What such a network makes of images (B, 3, h, w) in [0, 1]."""
    x = image
    for place in (0, 2):
        x = F.conv2d(x, weights[f"body.{place}.weight"], weights[f"body.{place}.bias"], padding=1)
        x = F.prelu(x, weights[f"body.{place + 1}.weight"])
    x = F.conv2d(x, weights["body.4.weight"], weights["body.4.bias"], padding=1)
    nearest = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return (F.pixel_shuffle(x, scale) + nearest).clamp(0, 1)


@pytest.fixture
def file(tmp_path) -> Path:
    """An upscaler by 2 as safetensors."""
    save_file(compact_weights(2), tmp_path / "compact-x2.safetensors")
    return tmp_path / "compact-x2.safetensors"


@pytest.fixture
def doubling(upsampler) -> CascadePipeline:
    return CascadePipeline.from_stages({"upsampler": upsampler})


def test_it_makes_what_an_independent_forward_pass_makes(file):
    peer = PeerUpscaler(file, CPU)
    assert (peer.scale, peer.channels) == (2, (3, 3))
    assert "Compact, ×2, sha256" in peer.about
    image = torch.rand(3, 7, 10, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = compact(compact_weights(2), (image[None] + 1) / 2, 2)[0] * 2 - 1
    assert torch.allclose(peer.upscale(image, 0), expected, atol=1e-6)
    before = torch.random.get_rng_state()
    peer.upscale(image, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", None])
def test_files_of_torch_are_read_without_unpickling_objects(tmp_path, wrapper):
    weights = compact_weights(2)
    others = {"params": {}} if wrapper == "params_ema" else {}
    torch.save(weights if wrapper is None else {wrapper: weights} | others, tmp_path / "x2.pth")
    assert PeerUpscaler(tmp_path / "x2.pth", CPU).scale == 2


def test_it_is_measured_beside_the_pipeline_on_the_same_inputs(
    doubling, file, held_out, extractor, tmp_path, lite_of_random_weights
):
    options = {"num_images": 2, "extractor": extractor, "cache_dir": tmp_path / "cache"}
    evaluation = evaluate(doubling, held_out, beside=[file], **options)
    subjects = [each.subject for each in evaluation.measured]
    assert subjects == ["bicubic", "compact-x2.safetensors", "whole pipeline"]
    truth = RealPictures(held_out, name="").read(range(2), doubling.stages.last.space)
    inputs = quantise(resize(truth, (16, 16), "bicubic"))
    results = quantise(compact(compact_weights(2), (inputs + 1) / 2, 2) * 2 - 1)
    score = evaluation.measured[1].score("PSNR, dB")
    assert score.value == pytest.approx(float(psnr(results, truth).mean()), rel=1e-4)
    names = [{each.name for each in measured.scores} for measured in evaluation.measured]
    assert names[1] == names[0]
    assert PeerUpscaler(file, CPU).about in evaluation.notes
    plain = evaluate(doubling, held_out, **options)
    assert [plain.measured[0].scores, plain.whole.scores] == [
        evaluation.measured[0].scores,
        evaluation.whole.scores,
    ]


# ---- what is refused ----------------------------------------------------------------------------


def refusal(error: type[CascadeError], files: list[Path], pipeline: CascadePipeline) -> str:
    """The one line that refuses files."""
    with pytest.raises(error) as caught:
        load_peers(files, pipeline.stages.contracts, CPU)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_another_scale_is_refused(doubling, tmp_path):
    save_file(compact_weights(4), tmp_path / "x4.safetensors")
    assert refusal(ContractError, [tmp_path / "x4.safetensors"], doubling) == (
        "x4.safetensors upscales 4 times, but the pipeline 2 times; name an upscaler of 2 times."
    )


def test_the_scale_of_a_chain_is_that_of_all_its_stages(file, tmp_path):
    save_file(compact_weights(4), tmp_path / "x4.safetensors")
    sizes = ((8, 16), (16, 32))
    chain = [Contract(Space(size_px=to), (LowResolution(size_px=px),)) for px, to in sizes]
    assert [peer.scale for peer in load_peers([tmp_path / "x4.safetensors"], chain, CPU)] == [4]
    with pytest.raises(ContractError, match="upscales 2 times, but the pipeline 4 times"):
        load_peers([file], chain, CPU)


def test_files_of_one_name_are_refused(doubling, file, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / file.name
    other.write_bytes(file.read_bytes())
    assert "files of the same name" in refusal(ContractError, [file, other], doubling)


def test_pipelines_that_do_not_upscale_are_refused(base_stage, colouriser, file):
    generator = CascadePipeline.from_stages({"base": base_stage})
    assert "leave them out" in refusal(ContractError, [file], generator)
    colours = CascadePipeline.from_stages({"colouriser": colouriser})
    assert "this one colourises" in refusal(ContractError, [file], colours)


def test_files_without_an_upscaler_are_refused(doubling, tmp_path):
    missing = tmp_path / "missing.safetensors"
    assert "does not exist" in refusal(WeightsError, [missing], doubling)
    (tmp_path / "damaged.safetensors").write_bytes(b"x" * 40)
    assert "is damaged" in refusal(WeightsError, [tmp_path / "damaged.safetensors"], doubling)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert "not an upscaler that spandrel" in refusal(
        WeightsError, [tmp_path / "other.safetensors"], doubling
    )
    weights = compact_weights(2)
    weights["body.2.weight"] = torch.zeros(8, 5, 3, 3)
    save_file(weights, tmp_path / "shapes.safetensors")
    assert "damaged or no upscaler" in refusal(
        WeightsError, [tmp_path / "shapes.safetensors"], doubling
    )
    save_file(compact_weights(1), tmp_path / "x1.safetensors")
    assert "does not upscale images" in refusal(
        WeightsError, [tmp_path / "x1.safetensors"], doubling
    )


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_code_in_a_file_never_runs(doubling, tmp_path, suffix):
    plain = partial(pickle.dumps, protocol=2)
    writers = {"plain": lambda value, to: to.write_bytes(plain(value)), "zip": torch.save}
    for name, write in writers.items():
        file, sign = (tmp_path / f"{name}{suffix}").resolve(), tmp_path / f"{name}-ran"
        write({"params": compact_weights(2), "note": Touch(sign)}, file)
        message = refusal(WeightsError, [file], doubling)
        assert "reading it could run code" in message
        assert "safetensors" in message
        assert not sign.exists()


def test_a_missing_package_is_named_with_its_remedy(doubling, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert "[spandrel]" in refusal(ContractError, [file], doubling)
