python -c "import json; r = [[s['correct'] for s in json.loads(l)['samples']] for l in open('pool-gym.jsonl')]; print(sum(map(sum, r)) / sum(map(len, r)), sum(map(any, r)) / len(r))"
outthink report pool-steps.jsonl
