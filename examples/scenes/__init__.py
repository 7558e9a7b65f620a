"""One example for each common kind of scene: Sentinel-2, Landsat, NAIP and a drone orthomosaic."""
