"""Examples: a generated landscape, and a demonstration with this landscape."""
