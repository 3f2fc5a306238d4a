"""Makes stages of weights that other projects trained, one module per layout of theirs."""
