export L=qwen2.5-coder-0.5b-instruct
# a recording of the same model with a prompt of its own and at most 320 tokens a sample; its programs are read and run anew
export P=humaneval_qwen05b.jsonl.gz
outthink pool humaneval --max-tokens 384 --model $P --n 16 --out pool-code05.jsonl
# these begin with four programs of the recording; judge, fusor and debaters are live
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $P --strategy best_of_n --n 4 --verifier tests --out c-tests
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $P --role judge=$L --strategy best_of_n --n 4 --verifier pairwise --out c-pairwise
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $P --role judge=$L --strategy rtv --n 4 --out c-rtv
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $P --role fusor=$L --strategy pdr --n 4 --out c-pdr
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $P --role fusor=$L --strategy rsa --n 4 --k 2 --rounds 1 --out c-rsa
outthink bench humaneval --max-tokens 384 --concurrency 4 --model $L --strategy debate --n 3 --out c-debate
outthink report c-tests c-debate c-pairwise c-pdr c-rsa c-rtv --against pool-code05.jsonl --markdown
