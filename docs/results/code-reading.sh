export L=qwen2.5-coder-1.5b-instruct
outthink pool humaneval --model $L --n 8 --max-tokens 384 --concurrency 12 --out pool-code.jsonl
# these choose from the pool; the judge and the fusor are live
outthink bench humaneval --max-tokens 384 --model pool-code.jsonl --strategy best_of_n --n 4 --verifier tests --out h-tests
outthink bench humaneval --max-tokens 384 --model pool-code.jsonl --role judge=$L --strategy best_of_n --n 4 --verifier judge --out h-judge
outthink bench humaneval --max-tokens 384 --model pool-code.jsonl --role fusor=$L --strategy pacore_prompted --widths 4 --out h-pacore
outthink bench humaneval --max-tokens 384 --limit 30 --model pool-code.jsonl --role judge=$L --strategy v1_infer --n 4 --comparisons 1.5 --out h-v1
outthink report h-judge h-tests h-pacore h-v1 --against pool-code.jsonl --markdown --csv code-reading.csv
outthink report pool-code.jsonl
