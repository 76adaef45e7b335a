python benchmarks/server.py --seconds 2 --servers ours,its-hub,bare
python benchmarks/server.py --seconds 2 --servers ours,its-hub,bare --words
