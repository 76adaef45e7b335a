# Methods in which texts are made of samples or compared with each other, beside the vote at equal tokens and calls and best-of-n by the same judge.
export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
export S=qwen2.5-coder-0.5b-instruct
outthink pool "$GYM32" --seed 1 --n 32 --max-tokens 160 --prompt-template "$T" --out pool-gym32.jsonl
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --strategy self_consistency --n 8 --out c-sc8
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role judge=$S --strategy best_of_n --n 8 --verifier judge --concurrency 32 --out c-bon-judge
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role judge=$S --strategy best_of_n --n 8 --verifier pairwise --concurrency 32 --out c-bon-pairwise
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role judge=$S --strategy v1_infer --n 8 --concurrency 32 --out c-v1
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role judge=$S --strategy rtv --n 8 --concurrency 32 --out c-rtv
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role fusor=$S --strategy rsa --n 8 --k 4 --rounds 2 --concurrency 32 --out c-rsa
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role fusor=$S --strategy pacore_prompted --widths 8 --concurrency 32 --out c-pacore
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --role fusor=$S --strategy pdr --n 4 --workspace 128 --concurrency 32 --out c-pdr
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy debate --n 4 --rounds 2 --concurrency 32 --out c-debate
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --model pool-gym32.jsonl --role judge=$S,fusor=$S --strategy elo_tournament --n 4 --concurrency 24 --out c-elo
outthink report c-sc8 c-bon-judge c-bon-pairwise c-v1 c-rtv c-rsa c-pacore c-pdr c-debate c-elo --against pool-gym32.jsonl --markdown
outthink report c-bon-judge c-v1 c-rtv c-elo --markdown
outthink report c-bon-pairwise c-v1 c-rtv c-elo --markdown
# Programs: which one is right is decided from their texts alone
outthink pool humaneval --n 8 --max-tokens 384 --concurrency 24 --out pool-humaneval.jsonl
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --strategy self_consistency --n 4 --out h-sc4
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --role judge=$S --strategy best_of_n --n 4 --verifier pairwise --concurrency 16 --out h-bon-pairwise
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --role judge=$S --strategy v1_infer --n 4 --concurrency 16 --out h-v1
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --role judge=$S --strategy rtv --n 4 --concurrency 16 --out h-rtv
outthink bench humaneval --max-tokens 384 --model pool-humaneval.jsonl --role fusor=$S --strategy pacore_prompted --widths 4 --concurrency 16 --out h-pacore
outthink report h-sc4 h-bon-pairwise h-v1 h-rtv h-pacore --markdown
