"""The store: bytes on pyarrow.fs, addressed by recipe."""
