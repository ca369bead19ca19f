"""What every model folder shares. One file, one job; see the map in the README."""
