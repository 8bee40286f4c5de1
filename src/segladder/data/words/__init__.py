"""Semantic vectors of classes."""
