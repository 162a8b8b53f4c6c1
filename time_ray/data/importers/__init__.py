"""Importers: other forms of data become datasets of our own, once."""
