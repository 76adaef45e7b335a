python benchmarks/plan_trust.py
python benchmarks/plan_trust.py --pool pool_gsm8k_qwen05b.jsonl.gz --answer math --prices 3e-5,1e-4,3e-4
python benchmarks/plan_trust.py --pool pool_cruxeval_codellama7b/output.jsonl --unit samples --prices 3e-4,1e-3,3e-3   # recordings of others
python benchmarks/plan_trust.py --pool pool_lastletters_gpt35x40.jsonl.gz --unit samples --prices 3e-4,1e-3,3e-3
