"""Texts whose embeddings a stage carries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from cascade.errors import ContractError, WeightsError
from cascade.text import known_texts as module
from cascade.text.encoders import find_encoder
from cascade.text.known_texts import KnownTexts

TEXTS = ["a cat", "a Red dog", "the house of a dog"]


@pytest.fixture
def bert(text_encoders):
    return find_encoder(str(text_encoders["bert"]))


def test_they_are_the_encoder_s_rounded_to_a_part_of_each_token_s_largest_number(bert):
    known = KnownTexts.of(TEXTS, bert, 64)
    for text, own in zip(TEXTS, bert.encode(TEXTS, 64), strict=True):
        rounded = known.get(text)
        assert rounded is not None
        for one, other in ((rounded.tokens, own.tokens), (rounded.pooled[None], own.pooled[None])):
            assert one.shape == other.shape
            step = other.float().abs().amax(dim=1, keepdim=True) / 127
            assert ((one.float() - other.float()).abs() <= 0.5 * step + 2e-3).all()


def test_writing_and_reading_changes_nothing(bert, tmp_path):
    known = KnownTexts.of(TEXTS, bert, 64)
    known.write(tmp_path / "one.safetensors")
    read = KnownTexts.read(tmp_path / "one.safetensors", bert.facts, 64)
    assert read.texts == TEXTS
    read.write(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (
        tmp_path / "two.safetensors"
    ).read_bytes()
    for text in TEXTS:
        assert read.get(text).tokens.equal(known.get(text).tokens)


def test_spaces_do_not_count_and_case_only_if_the_encoder_minds_it(text_encoders):
    for kind, ignores in (("bert", True), ("t5", False)):
        known = KnownTexts.of(TEXTS, find_encoder(str(text_encoders[kind])), 64)
        assert known.get("  a  Red dog\n") is not None
        assert (known.get("A RED dog") is not None) == ignores
        assert known.get("a dog") is None
        assert known.get("a red dog,") is None


def test_repeated_and_empty_lines_are_left_out(bert):
    assert KnownTexts.of(["a cat", "", " a  cat ", "  ", "a\ndog"], bert, 64).texts == [
        "a cat",
        "a dog",
    ]
    with pytest.raises(ContractError, match="only empty lines"):
        KnownTexts.of(["", " "], bert, 64)


def test_too_many_texts_are_refused_with_the_number_that_fits(bert, monkeypatch):
    texts = [f"a cat {number}" for number in range(100)]
    size = sum(each.nbytes for each in KnownTexts.of(texts, bert, 64)._tensors.values())
    monkeypatch.setattr(module, "LARGEST_BYTES", size)
    KnownTexts.of(texts, bert, 64)
    monkeypatch.setattr(module, "LARGEST_BYTES", size // 2)
    with pytest.raises(ContractError, match=r"100 known texts take .* keep about 49 of them"):
        KnownTexts.of(texts, bert, 64)


def test_a_damaged_file_is_refused_in_one_line(bert, tmp_path):
    file = tmp_path / "known_texts.safetensors"
    KnownTexts.of(TEXTS, bert, 64).write(file)
    tensors = load_file(file)
    data = file.read_bytes()
    for content in (data[:-5], b"", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"^[^\n]*known_texts.safetensors is damaged"):
            KnownTexts.read(file, bert.facts, 64)
    changes = {
        "pooled": tensors["pooled"][:1].clone(),
        "tokens": tensors["tokens"].float(),
        "token_scales": tensors["token_scales"][:2].clone(),
        "ends": tensors["ends"].flip(0),
    }
    for name, tensor in changes.items():
        save_file(tensors | {name: tensor}, file, {"ignores_case": "yes"})
        with pytest.raises(WeightsError, match="its tensors do not fit together"):
            KnownTexts.read(file, bert.facts, 64)
    save_file({"texts": torch.zeros(0)}, file)
    with pytest.raises(WeightsError, match="is damaged"):
        KnownTexts.read(file, bert.facts, 64)


def test_embeddings_of_other_sizes_than_the_stage_s_are_refused(bert, tmp_path):
    file = tmp_path / "known_texts.safetensors"
    KnownTexts.of(TEXTS, bert, 7).write(file)
    wider = replace(bert.facts, width=99)
    for facts, max_tokens in (
        (wider, 7),
        (replace(bert.facts, pooled_width=99), 7),
        (bert.facts, 6),
    ):
        with pytest.raises(WeightsError, match="its tensors do not fit together"):
            KnownTexts.read(file, facts, max_tokens)
    assert len(KnownTexts.read(file, bert.facts, 7)) == len(TEXTS)


def test_texts_that_the_encoder_tells_apart_are_told_apart(bert):
    """Lower case joins `A` and `a`; folding case would join `ß` and `ss` as well."""
    known = KnownTexts.of(["a strasse"], bert, 64)
    assert known.get("A STRASSE") is not None
    assert known.get("a straße") is None
