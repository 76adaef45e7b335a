python benchmarks/throughput.py --model qwen2.5-coder-0.5b-instruct
python benchmarks/throughput.py --model smollm2-135m-instruct
python benchmarks/throughput.py --model qwen2.5-coder-1.5b-instruct --max-tokens 48
python benchmarks/throughput.py --model qwen2.5-coder-0.5b-instruct --overhead --max-tokens 64
