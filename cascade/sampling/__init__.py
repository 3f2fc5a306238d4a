"""From noise to images: one walk over timesteps, its samplers, guidance, tiles and settings."""
