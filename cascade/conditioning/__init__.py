"""What a stage conditions on: the kinds of conditions, and the signals that networks receive."""
