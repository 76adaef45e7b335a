# a vLLM server as scripts/test-vllm starts it, on a machine that was busy with other work
python benchmarks/abort.py http://127.0.0.1:8123/v1 --at-once 1 --after 6 --times 3
python benchmarks/abort.py http://127.0.0.1:8123/v1 --at-once 8 --after 6 --times 2
