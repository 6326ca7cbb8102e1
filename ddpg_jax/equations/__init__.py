"""One function per published equation, without batch axes where a library can add them."""
