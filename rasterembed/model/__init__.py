"""DINOv3: which checkpoint, how it is loaded, and what computes it."""
