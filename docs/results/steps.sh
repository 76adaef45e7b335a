export STEPS="gym:chain_sum?size=300&min_terms=4&max_terms=6&min_digits=1&max_digits=2"
export TS="$(cat examples/chain_sum_prompt.txt)"
outthink pool "$STEPS" --seed 2 --prompt-template "$TS" --n 8 --max-tokens 128 --out pool-steps-train.jsonl
outthink prm train pool-steps-train.jsonl --delimiter '\n' --model qwen2.5-coder-0.5b-instruct --out probe.json
outthink pool "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --n 16 --max-tokens 128 --out pool-steps.jsonl
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy self_consistency --n 8 --out s-sc8
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy best_of_n --n 8 --verifier probe.json --out s-bon8
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy weighted_best_of_n --n 8 --verifier probe.json --out s-wbon8
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy self_consistency --n 16 --out s-sc16
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy best_of_n --n 16 --verifier probe.json --out s-bon16
outthink bench "$STEPS" --seed 3 --limit 159 --prompt-template "$TS" --max-tokens 128 --model pool-steps.jsonl --strategy weighted_best_of_n --n 16 --verifier probe.json --out s-wbon16
outthink bench "$STEPS" --seed 3 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --strategy rebase --width 8 --prm probe.json --out s-rebase
outthink bench "$STEPS" --seed 3 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --strategy beam --width 8 --prm probe.json --out s-beam
outthink bench "$STEPS" --seed 3 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --strategy dvts --width 8 --prm probe.json --out s-dvts
outthink bench "$STEPS" --seed 3 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --strategy particle_filter --n 8 --prm probe.json --out s-pf
PYTHONPATH=examples outthink bench "$STEPS" --seed 3 --prompt-template "$TS" --max-tokens 128 --delimiter '\n' --max-step-tokens 64 --strategy rebase --width 8 --prm chain_sum_oracle:oracle --out s-oracle
outthink report s-sc8 s-bon8 s-wbon8 s-sc16 s-bon16 s-wbon16 s-rebase s-beam s-dvts s-pf s-oracle --against pool-steps.jsonl --markdown
outthink report s-wbon16 s-rebase s-beam s-dvts s-pf --markdown  # the last four differences
outthink report pool-steps.jsonl
