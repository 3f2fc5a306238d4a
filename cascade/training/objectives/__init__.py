"""What a stage learns to do: one file per objective, and the table of their names."""
