"""Settings that saved records leave out, when two records are compared."""

from cascade.chain_settings import setting_changes


def changes(before, now):
    return setting_changes({"up": before}, {"up": now})


def test_options_that_are_left_out_have_their_usual_values():
    unsaid = {"sampler": "ddim", "steps": 2}
    assert changes({**unsaid, "timestep_shift": 8.0}, unsaid) == ["up.timestep_shift"]
    assert changes(unsaid, {**unsaid, "timestep_shift": 8.0}) == ["up.timestep_shift"]
    assert changes(unsaid, {**unsaid, "timestep_shift": 1.0, "eta": 0.0}) == []
    assert changes({**unsaid, "reuse": 2}, unsaid) == ["up.reuse"]


def test_the_options_of_another_sampler_are_no_changes_of_their_own():
    shifted = {"sampler": "ddim", "steps": 2, "timestep_shift": 8.0}
    assert changes(shifted, {"sampler": "unipc", "steps": 2}) == ["up.sampler"]
    solver = {"sampler": "unipc", "steps": 2, "config": {"solver_order": 3}}
    assert set(changes(shifted, solver)) == {"up.sampler", "up.config"}


def test_a_stage_without_settings_has_no_changes():
    assert changes({}, {}) == []
