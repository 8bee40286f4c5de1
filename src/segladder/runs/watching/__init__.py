"""What can be seen of a run while it trains: scores and pictures of held-out images, progress, its log."""
