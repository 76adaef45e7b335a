outthink prm eval probe.json processbench/math.jsonl --markdown
outthink prm eval probe.json processbench/math.jsonl --fit processbench/gsm8k.jsonl --markdown
outthink prm eval probe.json processbench/olympiadbench.jsonl --fit processbench/gsm8k.jsonl --markdown
outthink prm eval probe.json processbench/omnimath.jsonl --fit processbench/gsm8k.jsonl --markdown
