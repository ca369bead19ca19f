"""A model behind an OpenAI-compatible address on this machine, and load for any such server (README.md)."""
