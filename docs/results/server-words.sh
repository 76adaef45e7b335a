python benchmarks/server.py --words --seconds 2 --repeat 1 --servers ours,its-hub
