"""The scaling laws as commands, a file each: what they read, what they print."""
