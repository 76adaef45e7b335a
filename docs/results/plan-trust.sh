python benchmarks/plan_trust.py
python benchmarks/plan_trust.py --pool sums.jsonl --prices 3e-4,1e-3,3e-3   # of plan-small.sh
python benchmarks/plan_trust.py --pool pool_gsm8k_qwen05b.jsonl.gz --answer math --prices 3e-5,1e-4,3e-4
