outthink replay pool_gsm8k_qwen05b.jsonl.gz --answer math --strategies "self_consistency,likelihood,perplexity_consistency,borda,adaptive_consistency?threshold=0.9,esc,feature_vote" --n 8,24 --subsamples 200 --markdown
outthink replay pool_gsm8k_qwen05b.jsonl.gz --answer math --strategies "perplexity_consistency,rpc" --n 24 --subsamples 8 --markdown
