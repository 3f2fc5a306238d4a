"""Training settings of Python have the ranges of recipes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest
import torch

from cascade.errors import ContractError
from cascade.recipe.training_sections import TrainSection
from cascade.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": -1}, "images must be greater than 0, got -1."),
        ({"images": 1e6}, "images must be a valid integer, got 1000000.0."),
        ({"images": "many"}, "images must be a valid integer, got 'many'."),
        ({"batch_size": 0}, "batch_size must be greater than 0, got 0."),
        ({"batch_size": True}, "batch_size must be a number, got True."),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number, got nan."),
        ({"learning_rate": np.float32(-1)}, "learning_rate must be greater than 0, got -1.0."),
        ({"ema_decay": 2}, "ema_decay must be less than 1, got 2."),
        ({"betas": (0.9, 1.5)}, "betas must be less than 1, got (0.9, 1.5)."),
        ({"betas": (0.9,)}, "betas must be two numbers, got (0.9,)."),
        ({"betas": (0.9, 0.9, 0.9)}, "betas must be two numbers, got (0.9, 0.9, 0.9)."),
        ({"betas": 0.9}, "betas must be a valid list, got 0.9."),
        ({"optimiser": "sgd"}, "optimiser must be 'adamw' or 'muon', got 'sgd'."),
        ({"trackers": "wandb"}, "trackers must be a valid list, got 'wandb'."),
        ({"images": np.True_}, "images must be a number, got True."),
        ({"compile": 1}, "compile must be a valid boolean, got 1."),
        ({"seed": -1}, "seed must be greater than or equal to 0, got -1."),
    ],
)
def test_a_value_out_of_range_is_named(values: dict[str, Any], message: str):
    with pytest.raises(ContractError, match=f"^{re.escape(message)}$"):
        TrainingSettings(**values)


def test_numbers_of_numpy_and_lists_become_plain_values():
    settings = TrainingSettings(images=np.int64(5), betas=[0.5, 0.9], trackers=[])  # pyright: ignore
    assert type(settings.images) is int
    assert settings == TrainingSettings(images=5, betas=(0.5, 0.9), trackers=())


class Rate(float):
    """A number that a caller's own class holds."""


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("learning_rate", torch.tensor(0.5), 0.5),
        ("learning_rate", np.float64(0.5), 0.5),
        ("learning_rate", np.array(0.5), 0.5),
        ("learning_rate", Rate(0.5), 0.5),
        ("images", torch.tensor(5), 5),
        ("compile", np.True_, True),
        ("gradient_checkpointing", torch.tensor(True), True),
        ("betas", (np.float64(0.5), torch.tensor(0.25)), (0.5, 0.25)),
    ],
)
def test_values_of_other_classes_are_stored_as_plain_ones(name: str, value: Any, plain: Any):
    stored = getattr(TrainingSettings(**{name: value}), name)
    assert type(stored) is type(plain)
    assert stored == plain
    if isinstance(stored, tuple):
        assert [type(each) for each in stored] == [float, float]
    assert json.loads(json.dumps(asdict(TrainingSettings(**{name: value}))))


def test_defaults_are_those_of_recipes():
    recipe = TrainSection()
    for each in fields(TrainingSettings):
        assert getattr(TrainingSettings(), each.name) == getattr(recipe, each.name), each.name
