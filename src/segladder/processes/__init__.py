"""Runs in processes of their own: one after the other, several at once, sweeps and searches."""
