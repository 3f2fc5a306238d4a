"""Tasks: which chain is for what, what its users get, and what it is shown with."""

from __future__ import annotations

import shlex

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from cascade.chain import StageChain
from cascade.cli.main import app
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.mask import with_opacity
from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize
from cascade.restoration.colouring import Colouring, colourise_image
from cascade.restoration.restoring import Restoration, restore_image
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.space import Space
from cascade.tasks.colouring import luminance_error
from cascade.tasks.table import TASKS, find_task, task_named, task_of
from cascade.tasks.task import PairedTask


@pytest.fixture
def chains(base_stage, upsampler, colouriser, inpainter, restorer, drawing):
    """Stages by the name of their task."""
    return {
        "generate": [base_stage, upsampler],
        "draw": [stage for _, stage in drawing.stages.items()],
        "upscale": [upsampler],
        "colourise": [colouriser, upsampler],
        "edit": [inpainter, upsampler],
        "restore": [restorer, upsampler],
    }


def contracts(stages):
    return [stage.contract for stage in stages]


def test_a_chain_is_for_what_its_first_stage_takes(chains):
    for name, stages in chains.items():
        chain = StageChain({f"stage{number}": each for number, each in enumerate(stages)})
        assert task_of(chain.contracts).name == name
    assert {task.name for task in TASKS} == set(chains)


def test_one_task_suits_a_chain(chains):
    for stages in chains.values():
        assert sum(task.suits(contracts(stages)) for task in TASKS) == 1


def test_a_chain_that_no_task_suits_is_named(upsampler):
    contract = Contract(Space(size_px=16), (LowResolution(size_px=16),))  # it enlarges nothing
    assert find_task([contract]) is None
    with pytest.raises(ContractError, match="first stage takes 16 px; the tasks are generate"):
        task_of([contract])


def test_tasks_are_found_by_name():
    assert all(task_named(task.name) is task for task in TASKS)
    with pytest.raises(ContractError, match="unknown task 'upscal': did you mean 'upscale'"):
        task_named("upscal")


def test_what_a_task_runs_is_what_its_users_get(chains):
    low_res = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    upsampler = chains["upscale"]
    task = task_of(contracts(upsampler))
    assert isinstance(task, PairedTask)
    result = task.run(upsampler, Inputs({"image": low_res}), 7)
    assert torch.equal(result, upscale_image(upsampler, low_res[0], Upscaling(seed=7)))

    stages, grey = chains["colourise"], low_res[:, :1]
    task = task_of(contracts(stages))
    assert isinstance(task, PairedTask)
    coloured = colourise_image(stages, grey[0], Colouring(seed=7))
    result = task.run(stages, Inputs({"image": grey}), 7)
    assert torch.equal(result, upscale_image(stages[1:], coloured, Upscaling(seed=7)))
    assert result.shape == (3, 32, 32)

    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:9, 2:12] = True
    task = task_of(contracts(chains["edit"]))
    assert isinstance(task, PairedTask)
    for count, image in ((1, low_res[:1]), (2, resize(low_res[:1], (32, 32), "bicubic"))):
        stages, own = chains["edit"][:count], resize(hole.float(), image.shape[-2:], "area") > 0
        result = task.run(stages, Inputs({"image": with_opacity(image, own)}), 7)
        pipeline = CascadePipeline.from_stages({f"part{n}": each for n, each in enumerate(stages)})
        assert torch.equal(result, pipeline.edit(image, own[0, 0], seed=7).images[0])
        assert torch.equal(result[:, ~own[0, 0]], image[0][:, ~own[0, 0]])
        assert not torch.allclose(result, image[0], atol=0.01)

    task = task_of(contracts(chains["restore"]))
    assert isinstance(task, PairedTask)
    alone = restore_image(chains["restore"][:1], low_res[0], Restoration(seed=7))
    result = task.run(chains["restore"], Inputs({"image": low_res}), 7)
    assert torch.equal(result, upscale_image(chains["restore"][1:], alone, Upscaling(seed=7)))


def test_baselines_have_the_size_of_the_results(chains):
    inputs = Inputs({"image": torch.zeros(1, 1, 16, 16)})
    for name in ("upscale", "colourise"):
        task = task_of(contracts(chains[name]))
        assert isinstance(task, PairedTask)
        assert task.baseline(inputs, Space(size_px=32)).shape[-2:] == (32, 32)
    holes = Inputs({"image": torch.ones(1, 4, 16, 16)})
    filling = task_of(contracts(chains["edit"]))
    assert isinstance(filling, PairedTask)
    smooth = filling.baseline(holes, Space(size_px=32))
    torch.testing.assert_close(smooth, torch.ones(3, 32, 32))
    restoring = task_of(contracts(chains["restore"]))
    assert isinstance(restoring, PairedTask)
    torch.testing.assert_close(
        restoring.baseline(Inputs({"image": torch.ones(1, 5, 16, 16)}), Space(size_px=16)),
        torch.ones(3, 16, 16),
    )
    grey = torch.rand(1, 1, 16, 16)
    copy = task.baseline(Inputs({"image": grey}), Space(size_px=16))
    assert torch.equal(copy, grey[0].expand(3, -1, -1))


def test_a_luminance_that_is_off_by_a_level_is_an_error_of_one():
    grey = torch.full((2, 1, 8, 8), 0.25)
    images = (grey + torch.tensor([0.0, 1 / 127.5]).view(2, 1, 1, 1)).expand(-1, 3, -1, -1)
    torch.testing.assert_close(luminance_error(images, grey), torch.tensor([0.0, 1.0]))
    large = torch.nn.functional.interpolate(images, size=16)
    torch.testing.assert_close(luminance_error(large, grey, "area"), torch.tensor([0.0, 1.0]))


def test_the_card_of_a_pipeline_that_takes_text_shows_a_prompt_and_names_the_encoder(
    drawing, tmp_path
):
    drawing.save_pretrained(tmp_path / "mine")
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert "text-to-image" in card.data.tags
    assert 'cascade generate this/folder "a cat" -n 4 -o out' in card.text
    (text,) = [each for each in drawing.stages["base"].conditions if each.name == "text"]
    assert f"**text encoder**: {text.encoder}, weights {text.sha256[:12]}." in card.text
    assert "**prompts**: texts of up to 6 tokens; longer ones are truncated." in card.text


def test_a_stage_that_restores_is_not_measured_by_consistency(upsampler):
    (task,) = [each for each in TASKS if each.suits([upsampler.contract])]
    assert isinstance(task, PairedTask)
    assert list(task.figures([upsampler.contract])) == ["LR-consistency, 8-bit squared"]
    restoring = LowResolution(size_px=16, degradation=Degradation(probability=1))
    assert task.figures([Contract(upsampler.space, (restoring,))]) == {}
    paired = LowResolution(size_px=16, paired=True)
    assert task.figures([Contract(upsampler.space, (paired,))]) == {}


def test_example_commands_have_a_verb_of_the_command_line(chains):
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    for name in chains:
        program, verb, *arguments = shlex.split(task_named(name).command("a/folder"))
        assert (program, verb) == ("cascade", {"draw": "generate"}.get(name, name))
        assert verb in verbs
        assert "a/folder" in arguments


def test_a_model_card_has_the_examples_of_its_task_and_they_work(chains, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16), "red").save("image.png")
    Image.new("L", (16, 16), 255).save("mask.png")
    sizes = []
    monkeypatch.setattr(Image.Image, "show", lambda image: sizes.append(image.size))
    for name, stages in chains.items():
        named = {f"stage{number}": each for number, each in enumerate(stages)}
        CascadePipeline.from_stages(named).save_pretrained("this/folder")
        usage = task_named(name).usage("this/folder")
        card = ModelCard.load("this/folder/README.md")
        assert set(usage.tags) < set(card.data.tags)
        for example in (usage.command, "\n".join(usage.python)):
            assert f"\n{example}\n" in card.text
        exec("\n".join(usage.python), {})
    assert sizes == [(32, 32), (32, 32), (32, 32), (16, 16), (16, 16), (16, 16)]
