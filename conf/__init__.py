"""The configuration: Hydra composes a run from these building blocks."""
