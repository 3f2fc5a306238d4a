"""The losses that train stages: one file per objective, and the table of their names."""
