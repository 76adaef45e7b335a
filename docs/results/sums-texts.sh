export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
export S=qwen2.5-coder-0.5b-instruct
outthink pool "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --n 12 --concurrency 8 --out pool-sums.jsonl
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --model pool-sums.jsonl --strategy self_consistency --n 4 --out c-sc4
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --model pool-sums.jsonl --role judge=$S --strategy best_of_n --n 4 --verifier judge --out c-bon-judge
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --model pool-sums.jsonl --role fusor=$S --strategy pacore_prompted --widths 4 --out c-pacore
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy revision --n 4 --ratio 1 --out q-revision
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy budget_forcing --n 2 --n-ignore 1 --think-close='' --out q-forcing
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy path_summary --n 3 --out q-paths
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy debate --n 2 --rounds 2 --out c-debate
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy self_refine --n 2 --out q-refine
outthink report c-sc4 c-bon-judge c-pacore q-revision q-forcing q-paths c-debate q-refine --against pool-sums.jsonl --markdown
