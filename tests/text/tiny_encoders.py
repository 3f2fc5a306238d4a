"""Writes tiny text encoders with random weights, as transformers writes real ones."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

WIDTH = 16
WORDS = [
    "a",
    "the",
    "of",
    "in",
    "cat",
    "dog",
    "house",
    "red",
    "green",
    "blue",
    "black",
    "white",
    "yellow",
    "purple",
    "orange",
    "dot",
]
LETTERS = string.ascii_lowercase + string.digits + ",."
POSITIONS = 77  # that BERT and CLIP can read


def write_bert(folder: Path, *, seed: int = 0, **options) -> Path:
    """A BERT of one layer whose tokenizer ignores case."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*marks, *WORDS, *LETTERS[1:], *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    _write_tokenizer(
        folder, tokenizer, pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=POSITIONS,
        initializer_range=0.5,  # else the tokens hardly differ
    )
    return _write_model(folder, lambda: BertModel(config), seed, **options)


def write_t5(folder: Path, *, seed: int = 0, **options) -> Path:
    """A T5 of one layer, with its decoder; its tokenizer minds case."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), *LETTERS, "C"]
    tokenizer = Tokenizer(models.Unigram([(each, -1.0) for each in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    _write_tokenizer(folder, tokenizer, pad="<pad>", unk="<unk>", eos="</s>")
    config = T5Config(
        vocab_size=len(pieces),
        d_model=WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return _write_model(folder, lambda: T5ForConditionalGeneration(config), seed, **options)


def write_clip(folder: Path, *, seed: int = 0, **options) -> Path:
    """The text tower of a CLIP of one layer, which pads with its end mark."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*bytes_, *(f"{each}</w>" for each in bytes_), begin, end]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [], end_of_word_suffix="</w>", unk_token=end)  # pieces of bytes
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    _write_tokenizer(folder, tokenizer, pad=end, unk=end, bos=begin, eos=end)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=vocabulary[begin],
        eos_token_id=vocabulary[end],
        pad_token_id=vocabulary[end],
    )
    return _write_model(folder, lambda: CLIPTextModel(config), seed, **options)


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, **marks: str) -> None:
    tokens = {f"{name}_token": mark for name, mark in marks.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)


def _write_model(folder: Path, build: Callable, seed: int, **options) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
    model.eval().save_pretrained(folder, **options)
    return folder
