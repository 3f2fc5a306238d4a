"""From noise to images: one walk over timesteps, and its samplers, guidance, tiles and settings."""
