from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard

from cascade.errors import ContractError, OutputError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import list_recipes, recipe_name, recipes_root
from cascade.restoration.expected_error import ErrorCurve, ExpectedError
from cascade.saving.components import weights_digest
from cascade.saving.pipelines import has_weights
from cascade.stage import Stage

BUNDLED = [recipe_name(each) for each in list_recipes("pipelines") if has_weights(each.parent)]


@pytest.fixture
def pipeline(base_stage, upsampler) -> CascadePipeline:
    pipeline = CascadePipeline.from_stages({"base": base_stage, "up": upsampler})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images(pipeline: DiffusionPipeline, precision: str = "fp32") -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(num_images=2, seed=3, output_type="pt", precision=precision).images


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- round trips --------------------------------------------------------------------------------


def test_a_saved_pipeline_gives_the_same_images_and_saves_to_the_same_files(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "a")
    loaded = CascadePipeline.from_pretrained(tmp_path / "a")
    assert images(loaded).equal(images(pipeline))
    loaded.save_pretrained(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert not any(stage.training for _, stage in loaded.stages.items())


@pytest.mark.parametrize("name", BUNDLED)
def test_a_copy_of_a_bundled_pipeline_lacks_nothing(name, tmp_path):
    bundled = CascadePipeline.from_pretrained(name)
    curve = ErrorCurve(deviations=(0.0,), errors=(0.1,), correlation=0.5)
    bundled.stages.expected_error = ExpectedError(seeds=2, pictures=9, model="", curves=(curve,))
    bundled.save_pretrained(tmp_path / "copy", dtype=torch.bfloat16)
    own = files(recipes_root() / "pipelines" / name / "stages")
    assert files(tmp_path / "copy" / "stages") == own  # weights, known texts and scheduler too
    copy = CascadePipeline.from_pretrained(tmp_path / "copy").stages
    assert copy.expected_error == bundled.stages.expected_error
    for (stage_name, stage), (copied_name, copied) in zip(
        bundled.stages.items(), copy.items(), strict=True
    ):
        assert (copied_name, copied.kind) == (stage_name, stage.kind)
        assert copied.contract.to_dict() == stage.contract.to_dict()
        assert copied.sampling == stage.sampling
        assert copied.config() == stage.config()
        assert copied.summary() == stage.summary()
        assert weights_digest(copied) == weights_digest(stage)


def test_plain_diffusers_loads_the_folder_with_trust_remote_code(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "a")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "a", trust_remote_code=True)
    assert images(loaded).equal(images(pipeline))
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiffusionPipeline.from_pretrained(tmp_path / "a")


def test_a_dtype_is_written_and_can_be_asked_for_in_memory(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "full")
    pipeline.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    size = {
        name: sum(map(len, (d for n, d in files(tmp_path / name).items() if n.endswith("tensors"))))
        for name in ("full", "half")
    }
    assert size["half"] < 0.6 * size["full"]
    rounded = CascadePipeline.from_pretrained(tmp_path / "half").stages
    for name, parameter in rounded.named_parameters():
        original = pipeline.stages.get_parameter(name)
        assert parameter.dtype == original.dtype == torch.float32
        assert parameter.equal(original.bfloat16().float())
    half = CascadePipeline.from_pretrained(tmp_path / "full", torch_dtype=torch.bfloat16)
    assert {p.dtype for p in half.stages.parameters()} == {torch.bfloat16}
    assert torch.isfinite(images(half, "auto")).all()


def test_a_card_is_written_that_the_hub_can_read(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "a", recipe="kind: pipeline\n")
    card = ModelCard.load(tmp_path / "a" / "README.md")
    assert card.data.library_name == "diffusers"
    assert "cascade-diffusion" in card.data.tags
    for word in ("base", "up", "16 px", "32 px", "twemoji", "CascadePipeline.from_pretrained"):
        assert word in card.text
    assert (tmp_path / "a" / "pipeline.yaml").read_text() == "kind: pipeline\n"
    pipeline.save_pretrained(tmp_path / "a", card="# Mine\n")
    assert (tmp_path / "a" / "README.md").read_text() == "# Mine\n"


def test_loading_neither_uses_nor_moves_the_global_generator(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "a")
    torch.manual_seed(0)
    CascadePipeline.from_pretrained(tmp_path / "a")
    first = CascadePipeline.from_pretrained(tmp_path / "a")
    torch.manual_seed(1)
    second = CascadePipeline.from_pretrained(tmp_path / "a")
    assert images(first).equal(images(second))


# ---- saving is atomic ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("x")])
def test_a_failing_save_keeps_the_old_folder_and_leaves_no_rubbish(
    pipeline, tmp_path, monkeypatch, error
):
    pipeline.save_pretrained(tmp_path / "a")
    before = files(tmp_path)
    pipeline.stages["up"].network.backbone.conv_out.bias.data.fill_(1)

    def fail_at_the_second_stage(self, folder, *, dtype=None, write=Stage.write):
        if folder.name == "up":
            raise error
        write(self, folder, dtype=dtype)

    monkeypatch.setattr(Stage, "write", fail_at_the_second_stage)
    expected = OutputError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(expected) as caught:
        pipeline.save_pretrained(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.undo()
    pipeline.save_pretrained(tmp_path / "a")
    assert images(CascadePipeline.from_pretrained(tmp_path / "a")).equal(images(pipeline))


def test_a_folder_with_other_things_and_a_file_are_refused(pipeline, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x")
    (tmp_path / "file").write_text("x")
    for target in ("photos", "file", "file/below"):
        with pytest.raises(OutputError) as error:
            pipeline.save_pretrained(tmp_path / target)
        assert str(tmp_path / target) in str(error.value)
        assert "\n" not in str(error.value)
    assert sorted(files(tmp_path)) == ["file", "photos/1.jpg"]


def test_only_what_a_saved_pipeline_consists_of_is_replaced(pipeline, tmp_path):
    for name in ("README.md", "stages/mybase.yaml", "base/notes.txt", "pipeline.yaml"):
        own = tmp_path / name.replace("/", "-") / "own"
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text("mine")
        for model in (pipeline, pipeline.stages):
            with pytest.raises(OutputError, match="own holds other things, such as"):
                model.save_pretrained(own)
        assert files(own) == {name: b"mine"}
    pipeline.save_pretrained(tmp_path / "a")
    pipeline.stages.save_pretrained(tmp_path / "b")
    for folder in (tmp_path / "a" / "stages", tmp_path / "b"):
        (folder / "mybase.yaml").write_text("mine")
    with pytest.raises(OutputError, match=r"such as stages/mybase\.yaml, which would be lost"):
        pipeline.save_pretrained(tmp_path / "a")
    with pytest.raises(OutputError, match=r"such as mybase\.yaml, which would be lost"):
        pipeline.stages.save_pretrained(tmp_path / "b")


@pytest.mark.parametrize("name", ["notes.txt", "unet/notes.txt", "old/notes.txt"])
def test_a_file_of_the_users_in_the_folder_of_a_stage_stays(pipeline, tmp_path, name):
    stage = pipeline.stages["base"]
    for model, place in ((pipeline, "stages/base/"), (pipeline.stages, "base/"), (stage, "")):
        own = tmp_path / type(model).__name__
        model.save_pretrained(own)
        model.save_pretrained(own)  # nothing but what the first one wrote
        note = own / place / name
        note.parent.mkdir(exist_ok=True)
        note.write_text("mine")
        stranger = f"{place}{name}".removesuffix("/notes.txt" if "old/" in name else "")
        with pytest.raises(OutputError, match=f"such as {stranger}, which would be lost"):
            model.save_pretrained(own)
        assert note.read_text() == "mine"


def test_pickles_and_unknown_arguments_are_refused(pipeline, tmp_path):
    with pytest.raises(WeightsError, match="safetensors only"):
        pipeline.save_pretrained(tmp_path / "a", safe_serialization=False)
    with pytest.raises(ContractError, match="unknown argument 'dtpye': did you mean 'dtype'"):
        pipeline.save_pretrained(tmp_path / "a", dtpye=torch.float16)
    assert not (tmp_path / "a").exists()


# ---- folders that do not load -------------------------------------------------------------------

WEIGHTS = "stages/up/unet/diffusion_pytorch_model.safetensors"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickle_only(path: Path) -> None:
    path.rename(path.with_name("diffusion_pytorch_model.bin"))


def edit_json(**values) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("model_index.json", Path.unlink, "missing or unreadable"),
        ("model_index.json", edit_json(stages=None), "not a Cascade pipeline"),
        ("model_index.json", lambda path: path.write_text("{"), "not valid JSON"),
        ("model_index.json", lambda path: path.write_text("[1]"), "must hold a JSON object"),
        ("model_index.json", lambda path: path.write_bytes(b"\xff\xfe"), "not valid JSON"),
        ("stages", shutil.rmtree, r"chain\.json is missing"),
        ("stages/chain.json", lambda path: path.write_text("x"), "not valid JSON"),
        ("stages/up", shutil.rmtree, "no stage at"),
        ("stages/up/stage.json", Path.unlink, "missing"),
        (
            "stages/up/stage.json",
            lambda path: path.write_text("{}"),
            "unknown kind of stage 'None'",
        ),
        (
            "stages/up/stage.json",
            lambda path: path.write_text('{"kind": "diffusion"}'),
            "does not describe a stage",
        ),
        ("stages/up/stage.json", edit_json(network={"kind": "vae"}), "unknown network 'vae'"),
        ("stages/up/stage.json", edit_json(network="vae"), "does not describe a stage"),
        ("stages/up/stage.json", edit_json(kind="difusion"), "unknown kind .*'diffusion'"),
        ("stages/up/stage.json", edit_json(sampling={"stps": 3}), "unknown sampling setting"),
        ("stages/up/stage.json", edit_json(contract=3), "does not describe a stage"),
        ("stages/up/stage.json", edit_json(schedule={"kind": "?"}), r"stage\.json does .*got '\?'"),
        ("stages/up/unet/config.json", Path.unlink, "missing"),
        ("stages/up/unet/config.json", lambda path: path.write_text("no"), "not valid JSON"),
        ("stages/up/unet/config.json", edit_json(block_out_channels="x"), "does not describe|not"),
        ("stages/up/unet/config.json", edit_json(in_channels=5), "shape"),
        ("stages/up/embedding", shutil.rmtree, "missing"),
        (WEIGHTS, Path.unlink, "no .safetensors file"),
        (WEIGHTS, truncate, "damaged or truncated"),
        (WEIGHTS, lambda path: path.write_bytes(b""), "damaged or truncated"),
        (WEIGHTS, lambda path: path.write_bytes(b"\x80\x04K\x01."), "damaged or truncated"),
        (WEIGHTS, pickle_only, "pickled weights"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(pipeline, tmp_path, name, damage, words):
    pipeline.save_pretrained(tmp_path / "a")
    damage(tmp_path / "a" / name)
    with pytest.raises(WeightsError, match=words) as error:
        CascadePipeline.from_pretrained(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_another_diffusers_pipeline_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(WeightsError, match="a diffusers pipeline, not a Cascade pipeline"):
        CascadePipeline.from_pretrained(tmp_path)


def test_loading_never_unpickles(pipeline, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        pytest.fail("something was unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("torch.load", refuse)
    pipeline.save_pretrained(tmp_path / "a")
    (tmp_path / "a" / "stages" / "up" / "unet" / "extra.bin").write_bytes(b"\x80\x04K\x01.")
    assert images(CascadePipeline.from_pretrained(tmp_path / "a")).equal(images(pipeline))
