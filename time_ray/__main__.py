"""The command line as `python -m time_ray`."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the working folder: what lies there is data

from time_ray.cli import main

main()
