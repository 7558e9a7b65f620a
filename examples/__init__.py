"""Examples: a generated landscape, and a demonstration on it."""
