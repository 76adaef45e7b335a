export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink pool "gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2" --seed 1 --prompt-template "$T" --max-tokens 160 --n 32 --concurrency 8 --out pool-gym32.jsonl
outthink replay pool-gym32.jsonl --strategies "self_consistency,likelihood,perplexity_consistency,borda,borda?p=2,feature_vote,adaptive_consistency?threshold=0.9,esc,first_finish,mbr" --n 8,32 --subsamples 200 --markdown
outthink replay pool-gym32.jsonl --strategies "perplexity_consistency,rpc" --n 32 --subsamples 4 --markdown
