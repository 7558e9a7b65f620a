"""The console command `rasterembed`, and what every command line of the project has in common."""
