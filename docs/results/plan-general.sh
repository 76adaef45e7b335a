python benchmarks/plan_general.py data --own sums.jsonl   # of plan-small.sh
