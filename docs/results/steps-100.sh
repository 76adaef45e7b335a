export STEPS="gym:chain_sum?size=300&min_terms=4&max_terms=6&min_digits=1&max_digits=2"
export TS="$(cat examples/chain_sum_prompt.txt)"
outthink pool "$STEPS" --seed 2 --limit 150 --prompt-template "$TS" --n 8 --max-tokens 128 --out p-train.jsonl
outthink prm train p-train.jsonl --delimiter '\n' --model qwen2.5-coder-0.5b-instruct --out p-probe.json
outthink pool "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --n 16 --max-tokens 128 --out p-steps.jsonl
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --model p-steps.jsonl --strategy self_consistency --n 8 --out m-sc8
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --model p-steps.jsonl --strategy weighted_best_of_n --n 16 --verifier p-probe.json --out m-wbon16
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --model p-steps.jsonl --strategy majority_best --n 8 --verifier p-probe.json --out m-mb8
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --prm p-probe.json --strategy subpool_selection --width 8 --out m-subpool
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --prm p-probe.json --strategy pool_particles --n 8 --out m-pool
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --prm p-probe.json --strategy critic_refine --n 4 --rounds 1 --out m-critic
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --verifier p-probe.json --strategy parallel_tempering --steps 4 --chains 4 --out m-pt
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --verifier p-probe.json --strategy qalign --steps 4 --chains 4 --beta 0.25 --out m-qalign
outthink bench "$STEPS" --seed 3 --limit 100 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --prm p-probe.json --strategy beam --width 8 --out m-beam
outthink report m-sc8 m-wbon16 m-mb8 m-subpool m-pool m-critic m-pt m-qalign m-beam --against p-steps.jsonl --markdown
