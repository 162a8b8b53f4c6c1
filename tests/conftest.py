"""Tests run on one thread each, and see nothing of the caller's own storage, tracking or cluster."""

import os

# before torch is imported: the other cores are for what runs beside
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
for name in ("TIME_RAY_STORAGE", "TIME_RAY_DEBUG", "TIME_RAY_GIT_COMMIT", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(name, None)
