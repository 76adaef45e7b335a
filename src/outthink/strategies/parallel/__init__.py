"""Methods that draw complete samples independently of each other."""
