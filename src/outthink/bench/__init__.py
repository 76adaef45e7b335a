"""Benchmarks: recorded runs that survive interruption, pools of samples, and what results say."""
