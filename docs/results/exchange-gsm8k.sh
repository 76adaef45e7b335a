python benchmarks/exchange.py pool_gsm8k_qwen05b.jsonl.gz pool-gsm15.jsonl --small qwen2.5-coder-0.5b-instruct --large qwen2.5-coder-1.5b-instruct --scores scored --answer math --greedy gsm15-greedy
