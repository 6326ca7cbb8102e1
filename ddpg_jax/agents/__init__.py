"""What an agent is made of: networks, heads, noise, and the assembly that joins them."""
