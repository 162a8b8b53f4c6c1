"""time_ray: temporal model merging for CLIP, swept with Ray (TIME, https://arxiv.org/abs/2412.06712)."""

__version__ = "0.1.0"
