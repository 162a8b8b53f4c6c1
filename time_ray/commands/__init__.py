"""The parts of the command line that are groups of commands."""
