"""Runs that build on runs: chains, what a run learns from its parent, pseudo-masks, what labels cost."""
