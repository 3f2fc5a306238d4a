"""Networks behind one call, `network(x_t, t, signals)`: U-Net, pixel transformer, your own."""
