"""Command lines of the project: options from the parameters of a function, errors in one line, interruptions."""
