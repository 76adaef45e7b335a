python benchmarks/server.py --seconds 3 --servers ours,ours-2,its-hub,bare
