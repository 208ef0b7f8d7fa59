"""Pierhead beside nginx and other registries: see side-by-side."""
