"""How a model's folder is laid out."""

from typing import Literal

Layout = Literal["open_clip", "hf-folder"]
"""For open_clip and MLflow, or as the Hugging Face hub has models of open_clip."""
