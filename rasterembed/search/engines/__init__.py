"""Search engines: how the nearest vectors are found."""
