python benchmarks/overhead.py --rounds 9 --requests 250 --kinds keys,logs,learn,otel,all
