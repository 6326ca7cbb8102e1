"""The host loop: gymnasium environments around one jitted update. No input or output of files."""
