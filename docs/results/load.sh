python benchmarks/load.py > load.csv
