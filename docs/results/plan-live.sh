export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink bench "gym:chain_sum?size=80&min_terms=2&max_terms=4&min_digits=1&max_digits=2" --seed 6 --prompt-template "$T" --max-tokens 160 --strategy auto --plan plan-gym.json --mean-cost 327 --concurrency 40 --out live
outthink plan check plan-gym.json live
