export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink pool gsm8k-others.jsonl --prompt-template "$T" --max-tokens 320 --n 5 --out pool-others.jsonl   # questions 101 to 200
outthink prm train pool-others.jsonl -o probe-gsm.json                                                # AUROC .77 (.71 to .84)
outthink bench gsm8k --limit 100 --max-tokens 320 --model pool_gsm8k_qwen05b.jsonl.gz --strategy best_of_n --n 24 --verifier probe-gsm.json --out scored
outthink pool gsm8k --limit 100 --max-tokens 320 --n 4 --model qwen2.5-coder-1.5b-instruct --out pool-gsm15.jsonl
outthink plan fit pool_gsm8k_qwen05b.jsonl.gz --scores scored --target pool-gsm15.jsonl --unit flops --writer qwen2.5-coder-0.5b-instruct --answer math -o plan-gsm2.json
outthink plan show plan-gsm2.json --markdown
