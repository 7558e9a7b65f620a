"""The console command `rasterembed`."""
