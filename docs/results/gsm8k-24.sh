export OUTTHINK_DATA=...   # a folder with gsm8k/test.jsonl
outthink pool gsm8k --limit 24 --max-tokens 320 --n 8 --out pool-gsm8k.jsonl
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy greedy --out gsm8k-greedy
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy self_consistency --n 8 --model pool-gsm8k.jsonl --out gsm8k-sc
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy best_of_n --n 8 --verifier confidence --model pool-gsm8k.jsonl --out gsm8k-bon-confidence
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy best_of_n --n 8 --verifier judge --model pool-gsm8k.jsonl --role judge=qwen2.5-coder-0.5b-instruct --out gsm8k-bon-judge
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy rebase --width 8 --delimiter '\n\n' --prm confidence --out gsm8k-rebase
outthink bench gsm8k --limit 24 --max-tokens 320 --strategy revision --n 8 --ratio 2 --out gsm8k-revision
outthink report gsm8k-sc gsm8k-greedy gsm8k-bon-confidence gsm8k-bon-judge gsm8k-rebase gsm8k-revision --markdown
