python benchmarks/ets.py "$STEPS" --prompt-template "$TS" --width 16 --limit 32 --blocks 4 --prm probe.json
