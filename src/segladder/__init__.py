"""SegLadder compares segmentation methods that learn from full, weak, few or no masks under one evaluator."""

__version__ = "0.2.0"
