python benchmarks/plan_intervals.py --plans 100
