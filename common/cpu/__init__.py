"""What makes training fast on a CPU: layers with fewer passes over memory (layers.py), and the time of matrix products
in each precision (products.py). README.md says what is computed and what it is compared with."""
