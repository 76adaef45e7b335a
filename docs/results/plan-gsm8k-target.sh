export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink pool gsm8k --limit 100 --max-tokens 320 --n 4 --model qwen2.5-coder-1.5b-instruct --out pool-gsm15.jsonl
outthink plan fit pool_gsm8k_qwen05b.jsonl.gz --scores scored --target pool-gsm15.jsonl --unit flops --writer qwen2.5-coder-0.5b-instruct --answer math -o plan-gsm2.json
outthink plan show plan-gsm2.json --markdown
