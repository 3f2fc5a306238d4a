"""Texts are encoded only once, and their embeddings are kept in files."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from cascade.errors import CascadeError, ContractError
from cascade.kept_files import KeptFiles
from cascade.text import cached_encoder as module
from cascade.text.cached_encoder import CachedEncoder
from cascade.text.encoder import CPU, CutText, EncodedText, EncoderFacts, TextEncoder

FACTS = EncoderFacts("counting", "ab" * 32, 4, 3)
TEXTS = ["a cat", "a red dog", "x", "日本語", "\ud83d"]


class CountingEncoder(TextEncoder):
    """Makes embeddings of the characters of a text, and counts the texts."""

    most_tokens, ignores_case, tokenizer_sha256 = None, False, "0" * 64

    def __init__(self, facts: EncoderFacts = FACTS) -> None:
        self._facts = facts
        self.texts: list[str] = []

    @property
    def facts(self) -> EncoderFacts:
        return self._facts

    def encode(self, texts: Sequence[str], max_tokens: int, *, device=CPU) -> list[EncodedText]:
        self.texts += texts
        codes = [torch.tensor([ord(each) % 97 for each in text[:max_tokens]]) for text in texts]
        return [
            EncodedText(code[:, None].expand(-1, 4).half(), code.sum().expand(3).half() / 99)
            for code in codes
        ]

    def cut(self, text: str, max_tokens: int) -> CutText:
        return CutText(text[:max_tokens], text[max_tokens:])


@pytest.fixture
def live() -> CountingEncoder:
    return CountingEncoder()


def cached(live: TextEncoder, facts: EncoderFacts = FACTS) -> CachedEncoder:
    return CachedEncoder(facts, lambda name: live)


def assert_equal(first: Sequence[EncodedText], second: Sequence[EncodedText]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.tokens.equal(other.tokens)
        assert one.pooled.equal(other.pooled)


def test_embeddings_of_files_are_those_of_the_encoder(live, tmp_path):
    cached(live).encode_ahead(TEXTS, 6, tmp_path)
    silent = cached(CountingEncoder())
    silent.encode_ahead(TEXTS, 6, tmp_path)
    assert_equal(silent.encode(TEXTS, 6), live.encode(TEXTS, 6))
    assert silent._encoder is None  # it was not needed


def test_a_text_is_encoded_once(live, tmp_path):
    encoder = cached(live)
    encoder.encode(["a cat", "a cat", " a cat "], 6)
    encoder.encode(["x", "a cat"], 6)
    assert live.texts == ["a cat", "x"]
    encoder.encode(["a cat"], 3)  # cut elsewhere, it is another text
    assert live.texts == ["a cat", "x", "a cat"]


def test_new_texts_do_not_encode_the_old_ones_again(live, tmp_path):
    cached(live).encode_ahead(TEXTS[:3], 6, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    live.texts.clear()
    encoder = cached(live)
    encoder.encode_ahead([*TEXTS, "", "  x "], 6, tmp_path)
    assert sorted(live.texts) == sorted(TEXTS[3:])
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert_equal(encoder.encode(TEXTS, 6), CountingEncoder().encode(TEXTS, 6))


def test_other_encoders_and_lengths_have_files_of_their_own(live, tmp_path):
    other = EncoderFacts("counting", "cd" * 32, 4, 3)
    for facts, length in ((FACTS, 6), (FACTS, 3), (other, 6)):
        encoder = CountingEncoder(facts)
        cached(encoder, facts).encode_ahead(TEXTS, length, tmp_path)
        assert len(encoder.texts) == len(TEXTS)
    encoder = CountingEncoder()
    encoder.tokenizer_sha256 = "1" * 64  # which numbers the pieces of a text in another way
    cached(encoder).encode_ahead(TEXTS, 6, tmp_path)
    assert len(encoder.texts) == len(TEXTS)
    assert len(list(tmp_path.iterdir())) == 4


def test_many_texts_are_split_into_files_and_an_interruption_loses_only_the_last(
    live, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 8)
    monkeypatch.setattr(module, "FILE_BYTES", 200)
    monkeypatch.setattr(module, "LARGE_TEXTS", 50)
    texts = [f"text {number}" for number in range(60)]

    class Interrupted(CountingEncoder):
        def encode(self, texts, max_tokens, *, device=CPU):
            if len(self.texts) >= 40:
                raise KeyboardInterrupt
            return super().encode(texts, max_tokens, device=device)

    with pytest.raises(KeyboardInterrupt):
        cached(Interrupted()).encode_ahead(texts, 9, tmp_path)
    with caplog.at_level(logging.INFO):
        encoder = cached(live)
        encoder.encode_ahead(texts, 9, tmp_path)
    assert 20 <= len(live.texts) < 40
    assert len(list(tmp_path.rglob("*.safetensors"))) > 3
    assert_equal(encoder.encode(texts, 9), CountingEncoder().encode(texts, 9))
    assert not list(tmp_path.rglob("*.tmp"))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        cached(live).encode_ahead([f"other {number}" for number in range(60)], 9, tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "encoding 60 texts with counting"
    assert lines[-1] == "encoded 60 of 60 texts"


@pytest.mark.parametrize("how", ["truncated", "empty", "noise", "other tensors"])
def test_a_damaged_file_is_written_anew(live, tmp_path, how, caplog):
    cached(live).encode_ahead(TEXTS, 6, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    data = file.read_bytes()
    damaged = {"truncated": data[:-9], "empty": b"", "noise": b"\xff" * 999}
    if how in damaged:
        file.write_bytes(damaged[how])
    else:
        from safetensors.torch import save_file

        save_file({"tokens": torch.zeros(2, 4), "keys": torch.zeros(5)}, file)
    live.texts.clear()
    encoder = cached(live)
    encoder.encode_ahead(TEXTS, 6, tmp_path)
    assert len(live.texts) == len(TEXTS)
    assert "is damaged and will be written again" in caplog.text
    assert_equal(encoder.encode(TEXTS, 6), CountingEncoder().encode(TEXTS, 6))
    assert file.read_bytes() == data


def test_a_file_that_cannot_be_read_now_stays(live, tmp_path, monkeypatch, caplog):
    from cascade.text import embedding_files

    cached(live).encode_ahead(TEXTS, 6, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")

    def no_memory(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(embedding_files, "safe_open", no_memory)
        embedding_files.embedding_files(file.parent, live.facts)
    assert file.exists()
    assert "cannot be read now" in caplog.text
    live.texts.clear()
    cached(live).encode_ahead(TEXTS, 6, tmp_path)
    assert live.texts == []


def test_what_another_process_wrote_meanwhile_is_not_encoded_again(live, tmp_path, monkeypatch):
    """The files appear after this process has looked, and before it has the lock."""
    alone = KeptFiles.alone

    def late(self):
        monkeypatch.setattr(KeptFiles, "alone", alone)
        cached(CountingEncoder()).encode_ahead(TEXTS, 6, tmp_path)
        return alone(self)

    monkeypatch.setattr(KeptFiles, "alone", late)
    encoder = cached(live)
    encoder.encode_ahead(TEXTS, 6, tmp_path)
    assert live.texts == []
    assert_equal(encoder.encode(TEXTS, 6), CountingEncoder().encode(TEXTS, 6))


def test_texts_that_are_cut_or_unknown_are_counted_and_named_once(live, tmp_path, caplog):
    def cut(text: str, max_tokens: int) -> CutText:
        scripts = ("Latin",) if "к" in text else ()
        unknown = ("🦄",) if "🦄" in text else ()
        return CutText(text[:max_tokens], text[max_tokens:], unknown, scripts)

    live.cut = cut
    texts = ["кот", "a red dog", "🦄", "a 🦄", *(f"too long, {number}" for number in range(4))]
    cached(live).encode_ahead(texts, 6, tmp_path)
    cached(live).encode_ahead(texts, 6, tmp_path)
    lost, unknown, foreign = [record.getMessage() for record in caplog.records]
    assert lost.startswith("5 of 8 new texts have more than 6 tokens, so their ends are cut off")
    assert lost.endswith(": 'dog', 'ng, 0', 'ng, 1', and 2 more")
    words = "2 of 8 new texts have words that the text encoder counting does not know: '🦄'"
    assert unknown == words
    assert foreign == (
        "1 of 8 new texts are mostly in letters that the text encoder counting does not read, "
        "which are all but Latin: 'кот'"
    )


def test_a_folder_that_cannot_be_written_is_named_in_one_line(live, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CascadeError, match=r"^cannot write embeddings of texts to .*file.*\.$"):
        cached(live).encode_ahead(TEXTS, 6, tmp_path / "file")


def test_only_the_latest_texts_stay_in_memory(live, monkeypatch):
    monkeypatch.setattr(module, "RECENT_TEXTS", 3)
    encoder = cached(live)
    encoder.encode(["1", "2", "3", "4", "5"], 6)
    encoder.encode(["5", "3", "1"], 6)
    assert live.texts == ["1", "2", "3", "4", "5", "1"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (EncoderFacts("counting", "cd" * 32, 4, 3), "4 wide with weights cdcdcdcdcdcd"),
        (EncoderFacts("counting", "ab" * 32, 8, 3), "8 wide with weights abababababab"),
    ],
)
def test_an_encoder_of_another_width_or_hash_is_refused(facts, words):
    encoder = cached(CountingEncoder(facts))
    message = f"must be 4 wide with weights abababababab, as in training, .* here is {words}"
    with pytest.raises(ContractError, match=message):
        encoder.encode(["a cat"], 6)
    assert len(encoder.encode([""], 6)[0].tokens) == 0  # it needs no encoder
