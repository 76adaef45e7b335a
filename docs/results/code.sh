outthink pool humaneval --n 8 --max-tokens 384 --concurrency 24 --out pool-humaneval.jsonl
outthink pool mbpp --n 8 --max-tokens 320 --concurrency 24 --out pool-mbpp.jsonl
outthink report pool-humaneval.jsonl pool-mbpp.jsonl --markdown
OUTTHINK_DATA=data python -m pytest tests/tasks/test_code_tasks.py -k canonical  # the canonical solutions
