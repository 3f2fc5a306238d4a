"""The noise process of a stage: schedules, predictions, weights, and noise by seed."""
