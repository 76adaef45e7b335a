outthink pool humaneval --n 2 --max-tokens 384 --model qwen2.5-coder-1.5b-instruct --out pool-he15.jsonl
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --role tester=qwen2.5-coder-0.5b-instruct --strategy codet --n 8 --out he-codet8
python benchmarks/exchange.py pool-humaneval.jsonl pool-he15.jsonl --small qwen2.5-coder-0.5b-instruct --large qwen2.5-coder-1.5b-instruct --answer code --run he-codet8 --greedy he15-greedy
