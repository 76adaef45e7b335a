"""Methods in which an attempt sees the attempts before it."""
