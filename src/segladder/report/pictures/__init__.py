"""Pictures of results: panels of single images, curves, the history of a search."""
