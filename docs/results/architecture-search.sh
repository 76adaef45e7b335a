# recordings of others; needs outthink[search]
python benchmarks/architecture_search.py stages pool_probes_qwen3/*.jsonl.gz --csv architecture-search.csv
python benchmarks/architecture_search.py architecture pool_gsm8k_zeroeval/samples.jsonl.gz --csv architecture-search.csv
python benchmarks/architecture_search.py architecture pool_mathl5_zeroeval/samples.jsonl.gz --csv architecture-search.csv
