python benchmarks/plan_fit.py
