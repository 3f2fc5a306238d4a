"""Other programs that run a stage's network: export to their files, and sampling with them."""
