"""Pure tensor functions, each one formula of a paper; no configuration, no state."""
