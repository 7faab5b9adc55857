"""A llama.cpp server with an API key; prints its URL and serves until its input ends."""

import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = 0
params.n_ctx = 512
params.n_parallel = 1
params.warmup = False
params.verbosity = 0
params.cpuparams.n_threads = 1
params.api_keys = [sys.argv[2]]
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
