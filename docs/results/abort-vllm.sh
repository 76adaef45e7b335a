# a vLLM server as scripts/test-vllm starts it, on one core
for n in 1 8 32; do python benchmarks/abort.py http://127.0.0.1:8123/v1 --at-once $n --after 6 --times 10; done
