outthink plan fit pool_gsm8k_qwen05b.jsonl.gz --answer math -o plan-gsm.json
outthink plan show plan-gsm.json --markdown
outthink plan show plan-gsm.json --figure planner-gsm8k.svg
outthink plan check plan-gsm.json pool_gsm8k_qwen05b.jsonl.gz --answer math
