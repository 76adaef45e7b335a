"""Learned from recordings: process reward models, and when a dear model takes over."""
