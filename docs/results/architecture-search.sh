# recordings of others; needs outthink[search]
python benchmarks/architecture_search.py stages pool_probes_qwen3/*.jsonl.gz --csv architecture-search.csv
python benchmarks/architecture_search.py architecture pool_gsm8k_zeroeval/samples.jsonl.gz --searches random,tpe --csv architecture-search.csv
python benchmarks/architecture_search.py architecture pool_mathl5_zeroeval/samples.jsonl.gz --searches random,tpe --csv architecture-search.csv
python benchmarks/architecture_search.py graph pool_probes_qwen3/*.jsonl.gz --searches random,reinforce --evaluations 10,30 --csv architecture-search.csv
# with a language model that proposes, whose replies are kept
python benchmarks/architecture_search.py stages pool_probes_qwen3/*.jsonl.gz --searches random,insights,agent --evaluations 20 --repeats 12 --replies replies.jsonl
