"""The model: which DINOv3 checkpoint a run uses, how it is loaded, and the engine that computes vectors with it."""
