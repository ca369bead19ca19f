"""Scripts that the bench runs, each in its own process: they read a JSON task and print a JSON line."""
