python benchmarks/server.py --seconds 3
