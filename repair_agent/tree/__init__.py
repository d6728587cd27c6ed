"""Where a repair is made, which files may change, and what they may reach for."""
