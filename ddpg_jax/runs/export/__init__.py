"""A trained policy as files that other programs run: one module for each form, `export` joins them."""
