"""Merging: every technique, exact, incremental over time, streamed from disk. Needs torch and safetensors only."""
