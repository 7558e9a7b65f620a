"""DINOv3's network as a machine computes it best: eager, compiled, by OpenVINO, on a CPU or on CUDA."""
