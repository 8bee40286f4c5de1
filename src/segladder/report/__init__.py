"""From what runs wrote to tables, pictures and comparisons."""
