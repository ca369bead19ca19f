"""What every model folder shares. One file, one job; see the map in the README."""

import os

from common import machine

# OpenMP reads these when torch loads it. Threads that wait for one another sleep: spinning ones made training ten times
# slower beside any other busy process (`python -m common bench busy`).
OPENMP = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(machine.cores())}
for name, value in OPENMP.items():
    os.environ.setdefault(name, value)
