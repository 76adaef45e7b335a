outthink replay gpqa.jsonl --strategies self_consistency,best_of_n,weighted_best_of_n,heimdall --n 8,64 --verdicts 1 --subsamples 500  # and 2, 4, 8, 16, 32
outthink replay gpqa.jsonl --n 1,64
outthink report codegen.jsonl
python benchmarks/codet_pool.py codegen.jsonl
outthink report io.jsonl cot.jsonl
outthink replay dates.jsonl --strategies self_consistency,esc,adaptive_consistency --n 1,5,10
outthink replay olympiad.jsonl --answer math --strategies self_consistency,mbr --n 1,4,8
outthink replay rewardmath.jsonl --strategies best_of_n --n 10 --verifier internlm2  # and the others by name
