export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
export S=qwen2.5-coder-0.5b-instruct
outthink pool "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --n 16 --concurrency 8 --out pool-sums.jsonl
# these choose from the pool; the judge and the fusor are live
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-sums.jsonl --strategy self_consistency --n 4 --out c-sc4
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-sums.jsonl --role judge=$S --strategy best_of_n --n 4 --verifier judge --out c-bon-judge
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-sums.jsonl --role judge=$S --strategy v1_infer --n 4 --out c-v1
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-sums.jsonl --role judge=$S --strategy rtv --n 4 --out c-rtv
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-sums.jsonl --role fusor=$S --strategy pacore_prompted --widths 4 --out c-pacore
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy revision --n 4 --ratio 1 --out q-revision
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy path_summary --n 3 --out q-paths
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy debate --n 2 --rounds 2 --out c-debate
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy rsa --n 4 --k 2 --rounds 1 --out c-rsa
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy self_refine --n 2 --out q-refine
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy budget_forcing --n 2 --n-ignore 1 --think-close='' --out q-forcing
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy pdr --n 3 --rounds 1 --workspace 160 --out c-pdr
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy three_d --n 3 --rounds 2 --out q-3d
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy elo_tournament --n 4 --matches 2 --evolved 1 --out c-elo
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy spawn_join --out q-spawn
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy answer_graph --nodes "assistant:3,1>fuser" --out c-graph
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy archon --layers "generator:3|critic|fuser" --out c-archon
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy trimr --n 2 --think-close='' --markers $'\n' --out q-trimr
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy scale --outlines 2 --last-hard=false --out q-scale
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy power_sampling --steps 3 --out q-power
outthink report c-sc4 c-bon-judge c-v1 c-rtv c-pacore q-revision q-paths c-debate c-rsa q-refine q-forcing c-pdr q-3d c-elo q-spawn c-graph c-archon q-trimr q-scale q-power --against pool-sums.jsonl --markdown --csv sums-texts.csv
outthink report c-bon-judge c-v1 c-rtv --markdown
outthink replay pool-sums.jsonl --strategies "self_consistency,perplexity_consistency" --n 4,8,16 --subsamples 50 --markdown
