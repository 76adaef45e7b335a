python benchmarks/view.py
