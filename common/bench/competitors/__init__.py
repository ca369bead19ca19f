"""Scripts that the bench runs, each in a process of its own: a JSON task comes in, a JSON line goes out."""
