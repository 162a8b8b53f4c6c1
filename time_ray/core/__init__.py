"""The pure core: recipes, strategies, streams, plans and scores. No file, clock, network or global random state."""
