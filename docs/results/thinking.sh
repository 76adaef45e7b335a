python benchmarks/thinking.py pool_probes_qwen3/*.jsonl.gz --groups 0.6b,1.7b,4b,8b   # recordings of others
python benchmarks/thinking.py pool_probes_qwen3/*.jsonl.gz --groups 0.6b,1.7b,4b,8b --judged
python benchmarks/abort.py smollm2-135m-instruct --times 10
