"""Muon equals torch's where the hardware has bfloat16, and takes no emulated bfloat16 elsewhere."""

from __future__ import annotations

import pytest
import torch

from cascade.training import muon
from cascade.training.muon import Muon, orthogonalised

SHAPES = ((8, 12), (12, 8), (8, 3, 2, 2), (32, 3, 2, 2))
OPTIONS = {"lr": 0.1, "weight_decay": 0.01}


def after_steps(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same weight before and after three steps of ours, and of torch's on the flat weight."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    flat = torch.nn.Parameter(weight.detach().flatten(1).clone())
    before = weight.detach().clone()
    ours, theirs = Muon([weight], **OPTIONS), torch.optim.Muon([flat], **OPTIONS)
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        flat.grad = weight.grad.flatten(1)
        ours.step()
        theirs.step()
    return before, weight.detach(), flat.detach().view(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_with_bf16_it_equals_torchs_bit_for_bit(shape, monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: True)
    before, ours, theirs = after_steps(shape)
    assert ours.equal(theirs)
    assert not ours.equal(before)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_bf16_it_stays_near_torchs(shape, monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: False)
    before, ours, theirs = after_steps(shape)
    assert not ours.equal(theirs)
    assert (ours - theirs).norm() < 0.03 * (theirs - before).norm()


@pytest.mark.parametrize("has_bf16", [True, False])
def test_the_hardware_decides_the_arithmetic(has_bf16, monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: has_bf16)
    update = orthogonalised(torch.randn(6, 9))
    assert update.dtype == (torch.bfloat16 if has_bf16 else torch.float32)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_singular_values_come_near_1_and_their_vectors_stay(shape, monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: False)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    core = u.T @ orthogonalised(matrix) @ v.T
    assert (core - core.diag().diag()).abs().max() < 1e-3
    assert (core.diag()[values > 0.02 * values.norm()] - 0.95).abs().max() < 0.3


def test_weights_with_channels_last_move_as_others_do(monkeypatch):
    monkeypatch.setattr(muon, "has_fast_bf16", lambda device: False)
    plain = torch.nn.Parameter(torch.randn(8, 3, 2, 2))
    other = torch.nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    for _ in range(2):
        plain.grad = torch.randn(plain.shape)
        other.grad = plain.grad.clone(memory_format=torch.channels_last)
        Muon([plain, other], **OPTIONS).step()
    assert other.equal(plain)
    assert other.is_contiguous(memory_format=torch.channels_last)


def test_weights_without_gradients_stay():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    before = weight.detach().clone()
    Muon([weight], **OPTIONS).step()
    assert weight.equal(before)
