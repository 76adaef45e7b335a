export T=$'{question}\nThink step by step briefly. End with a line: #### <number>'
outthink plan fit pool-gym32.jsonl --cache-block 32 -o plan-gym.json
outthink plan show plan-gym.json --markdown
outthink plan show plan-gym.json --figure planner-sums.svg
