"""The command line as `python -m time_ray`."""

from time_ray.cli import main

main()
