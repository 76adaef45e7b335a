export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
outthink pool "$GYM32" --seed 1 --prompt-template "$T" --max-tokens 160 --n 8 --model qwen2.5-coder-1.5b-instruct --out pool-gym15.jsonl
outthink plan fit pool-gym32.jsonl --target pool-gym15.jsonl --unit flops -o plan-gym2.json
outthink plan show plan-gym2.json --markdown
