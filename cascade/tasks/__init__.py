"""What pipelines are for: making pictures, enlarging them, colouring them."""
