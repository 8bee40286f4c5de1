"""The leaderboard as one HTML page: its names, its tables, its figures, each row in full."""

from segladder.report.page.whole import page

__all__ = ["page"]
