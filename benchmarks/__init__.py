"""Measurements of speed and memory (`make bench`), and the programs that write recorded data."""
