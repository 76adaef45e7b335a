python benchmarks/exchange.py pool-gym32.jsonl pool-gym15.jsonl --small qwen2.5-coder-0.5b-instruct --large qwen2.5-coder-1.5b-instruct --greedy gym15-greedy
