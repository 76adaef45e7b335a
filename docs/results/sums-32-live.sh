export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM32="gym:chain_sum?size=200&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --model pool-gym32.jsonl --strategy self_consistency --n 8 --out p-sc8
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --strategy hedged_sampling --n 8 --concurrency 32 --out p-hedged
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy nothinking --n 8 --out p-nothink
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy chops --n 8 --concurrency 32 --out p-chops
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --strategy multi_temperature --temperatures 0,0.4,0.8,1.2 --n 4 --n-min 3 --concurrency 24 --out p-multi
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 30 --strategy x_mbr --concurrency 24 --out p-xmbr
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 30 --model pool-gym32.jsonl --role judge=qwen2.5-coder-0.5b-instruct --strategy failed_step_fraction --n 8 --concurrency 24 --out p-fsf
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 30 --model pool-gym32.jsonl --role judge=qwen2.5-coder-0.5b-instruct --strategy heimdall --n 8 --m 2 --concurrency 24 --out p-heimdall8
outthink bench "$GYM32" --seed 1 --max-tokens 160 --prompt-template "$T" --limit 100 --model pool-gym32.jsonl --role fusor=qwen2.5-coder-0.5b-instruct --strategy fusion --n 8 --concurrency 32 --out p-fusion
outthink report p-sc8 p-hedged p-nothink p-chops p-multi p-xmbr p-fsf p-heimdall8 p-fusion --against pool-gym32.jsonl --markdown
outthink report p-sc32 p-bon32 p-wbon32 p-optscale p-resample --against pool-gym32.jsonl --markdown
