export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink plan fit pool-steps.jsonl s-dvts s-rebase --scores s-bon16 -o plan-steps.json
outthink plan show plan-steps.json --markdown
