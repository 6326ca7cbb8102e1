"""Where the data rests."""
