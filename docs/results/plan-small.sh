export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink pool "gym:chain_sum?size=200&min_terms=2&max_terms=2&min_digits=1&max_digits=2" --seed 5 --model smollm2-135m-instruct --prompt-template "$T" --max-tokens 64 --n 16 --out sums.jsonl
outthink plan fit sums.jsonl -o plan-small.json
outthink plan show plan-small.json --markdown
