"""What every model folder shares. One file, one job; see the map in the README."""

import os

from common import machine

# OpenMP reads these when torch loads it. Threads that wait for one another sleep: spinning ones made training ten times
# slower beside any other busy process (`python -m common bench busy`).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(machine.cores()))
