"""What makes the files that are shipped in the package; users need none of it."""
