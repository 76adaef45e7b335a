python benchmarks/search_loop.py
