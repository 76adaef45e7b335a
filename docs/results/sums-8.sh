export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
export GYM="gym:chain_sum?size=300&min_terms=2&max_terms=4&min_digits=1&max_digits=2"
outthink pool "gym:chain_sum?size=300&min_terms=2&max_terms=4&min_digits=1&max_digits=2" --prompt-template "$T" --n 8 --max-tokens 160 --out pool-gym.jsonl
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy greedy --out gym-greedy
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy self_consistency --n 8 --model pool-gym.jsonl --out gym-sc
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy best_of_n --n 8 --verifier confidence --model pool-gym.jsonl --out gym-bon-confidence
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy weighted_best_of_n --n 8 --verifier confidence --model pool-gym.jsonl --out gym-wbon-confidence
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy best_of_n --n 8 --verifier judge --model pool-gym.jsonl --role judge=qwen2.5-coder-0.5b-instruct --out gym-bon-judge
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy rebase --width 8 --delimiter '\n' --prm confidence --out gym-rebase
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy revision --n 8 --ratio 2 --out gym-revision
outthink report gym-sc gym-greedy gym-bon-confidence gym-wbon-confidence gym-bon-judge gym-rebase gym-revision --markdown
outthink report gym-bon-confidence gym-bon-judge gym-wbon-confidence gym-rebase --markdown  # the last three differences
python -c "import json; r = [[s['correct'] for s in json.loads(l)['samples']] for l in open('pool-gym.jsonl')]; print(sum(map(sum, r)) / sum(map(len, r)), sum(map(any, r)) / len(r))"   # 0.285 and 0.767
# the vote, live, on the first 40 questions
outthink bench "$GYM" --prompt-template "$T" --max-tokens 160 --strategy self_consistency --n 8 --limit 40 --out gym-sc-live
python -c "import json; R = lambda d: {r['problem']: sum(c['cost']['tokens'] for c in r['trace']['calls']) for r in map(json.loads, open(d + '/results.jsonl'))}; ids = R('gym-sc-live'); [print(d, sum(R(d)[i] for i in ids) / len(ids)) for d in ('gym-sc-live', 'gym-sc', 'gym-rebase', 'gym-revision')]"
