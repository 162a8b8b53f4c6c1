"""The pictures of the documentation: `python -m time_ray.tools.pictures EXP -o FOLDER`."""
