export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
outthink pool "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --n 32 --concurrency 32 --out pool-gym32.jsonl
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy revision --n 8 --ratio 2 --concurrency 32 --out q-revision
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy revision --n 8 --ratio 0.5 --hierarchical true --patience 1 --concurrency 32 --out q-revision-wide
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy self_refine --n 4 --concurrency 32 --out q-refine
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy budget_forcing --n 4 --n-ignore 1 --think-close='' --concurrency 32 --out q-forcing
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy failed_step_fraction --n 8 --signal proxy --selector vote --model pool-gym32.jsonl --out q-proxy
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy path_summary --n 4 --concurrency 32 --out q-paths
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy three_d --n 4 --rounds 2 --concurrency 24 --out q-three-d
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy three_d --n 4 --rounds 2 --verifier confidence --concurrency 24 --out q-three-d-scored
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy trimr --n 4 --markers $'\n' --think-close='' --m 1 --concurrency 24 --out q-trimr
outthink bench "$GYM32" --seed 1 --max-tokens 320 --prompt-template "$T" --limit 100 --strategy scale --outlines 2 --concurrency 24 --out q-scale
outthink bench "$GYM32" --seed 1 --max-tokens 320 --prompt-template "$T" --limit 100 --strategy spawn_join --rounds 1 --concurrency 24 --out q-spawn
outthink report q-revision q-revision-wide q-refine q-forcing q-proxy q-paths q-three-d q-three-d-scored q-trimr q-scale q-spawn --against pool-gym32.jsonl --markdown
