"""What a person runs: one module a flow."""
