"""The model: find a DINOv3 checkpoint, load the model, and compute vectors with one of several engines."""
