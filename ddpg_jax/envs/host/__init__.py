"""gymnasium environments."""
