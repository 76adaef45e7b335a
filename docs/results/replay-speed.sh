python benchmarks/replay.py
