python benchmarks/thinking.py pool_probes_qwen3/*.jsonl.gz --groups 0.6b,1.7b,4b,8b   # recordings of others
python benchmarks/thinking.py pool_probes_qwen3/*.jsonl.gz --groups 0.6b,1.7b,4b,8b --judged
python benchmarks/abort.py smollm2-135m-instruct --times 10
python benchmarks/thinking.py pool_probes_qwen3/*.jsonl.gz --groups 0.6b,1.7b,4b,8b,probes --auto --subsamples 60
python benchmarks/thinking.py pool_gsm8k_qwen05b.jsonl.gz pool_olympiad200_qwen7b.jsonl.gz pool_math100_qwen.jsonl --groups gsm8k,olympiad,math100 --auto --subsamples 60
python benchmarks/thinking.py pool_date_codex40.jsonl.gz pool_date_gpt35x10.jsonl.gz pool_lastletters_gpt35x40.jsonl.gz --groups date_codex,date_gpt,letters --answer text --auto --subsamples 60
