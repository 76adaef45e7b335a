outthink pool "gym:chain_sum?size=300&min_terms=4&max_terms=6&min_digits=1&max_digits=2" --seed 2 --n 8 --max-tokens 128 --prompt-template "$(cat examples/chain_sum_prompt.txt)" --out train.jsonl
outthink pool "gym:chain_sum?size=300&min_terms=4&max_terms=6&min_digits=1&max_digits=2" --seed 3 --n 16 --max-tokens 128 --prompt-template "$(cat examples/chain_sum_prompt.txt)" --out test.jsonl
outthink prm train train.jsonl --delimiter "\n" --out probe.json
outthink prm eval probe.json test.jsonl --markdown
