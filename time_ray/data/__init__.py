"""Datasets: read, imported, drawn, and dealt out in batches. Knows no model, no store and no Ray."""
