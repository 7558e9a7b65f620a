"""The console command `rasterembed`, and the code that all command lines of the project share."""
