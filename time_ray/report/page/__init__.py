"""The page of `time-ray report`: what a sweep found, in one file that needs nothing else."""
