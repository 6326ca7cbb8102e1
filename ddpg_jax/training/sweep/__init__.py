"""Many configurations side by side."""
