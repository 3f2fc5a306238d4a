"""The kinds of conditions of a stage, and the signals that networks receive from them."""
