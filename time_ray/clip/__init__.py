"""CLIP models of open_clip: built, trained, evaluated, and what they cost. Knows no store and no Ray."""
