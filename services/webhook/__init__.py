"""The parts of the upload webhook: its settings, the bodies it reads, Prefect's API, and where hopeless records go."""
