"""The progress of a run for people: rate and time left, a bar on a terminal, and lines in a file."""
