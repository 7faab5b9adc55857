"""The small Llama of testing/fixtures through transformers, from a hub.

Always: configuration and tokenizer. With HEAVY=1 and torch: the whole model, from the GGUF file and from safetensors that
transformers itself pushes, with its first logits and greedy tokens compared with golden.json, which a program in numpy
made. Environment: HF_ENDPOINT, HF_HOME (empty), HF_TOKEN, ALICE (address), FIXTURES, HEAVY.
"""

import json
import os
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from transformers import AutoConfig, AutoTokenizer

FIXTURES = Path(os.environ["FIXTURES"]) / "tiny-llama"
MODEL = f"{os.environ['ALICE']}/tiny-llama"
# As its README describes the model.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "vocab_size": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": 2,
}
GGUF = "trained-Q8_0.gguf"
# Q8_0 weights against the F32 weights that golden.json is of.
LOGIT_TOLERANCE = 0.1


def push():
    api = HfApi()
    api.create_repo("tiny-llama")
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "model_max_length": 1024}
    api.create_commit(
        MODEL,
        [
            CommitOperationAdd("config.json", json.dumps(CONFIG).encode()),
            CommitOperationAdd("tokenizer.json", FIXTURES / "tok1k.json"),
            CommitOperationAdd("tokenizer_config.json", json.dumps(tokenizer).encode()),
            CommitOperationAdd(GGUF, FIXTURES / GGUF),
        ],
        commit_message="the small Llama",
    )


def load_config_and_tokenizer(golden):
    config = AutoConfig.from_pretrained(MODEL)
    for key, value in CONFIG.items():
        assert getattr(config, key) == value or key == "rope_parameters", (key, getattr(config, key), value)
    assert config.rope_parameters["rope_theta"] == 10000.0, config.rope_parameters
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for case in golden:
        assert tokenizer(case["prompt"]).input_ids == case["prompt_ids"], case["prompt"]
        assert tokenizer.decode(case["greedy_ids"]) == case["greedy_text"], case["greedy_text"]
    # What was loaded are the bytes of the hub, not something near it.
    assert Path(hf_hub_download(MODEL, "tokenizer.json")).read_bytes() == (FIXTURES / "tok1k.json").read_bytes()
    print(f"transformers: configuration and tokenizer, {len(golden)} prompts encoded and decoded")
    return tokenizer


def compare(model, golden):
    """First logits within the tolerance, and greedy tokens up to the first near tie."""
    import torch

    equal = 0
    with torch.no_grad():
        for case in golden:
            first = model(torch.tensor([case["prompt_ids"]])).logits[0, -1]
            for token, value in case["top5_first"]:
                assert abs(first[token].item() - value) < LOGIT_TOLERANCE, (case["prompt"], token, first[token].item(), value)
            ids = list(case["prompt_ids"])
            for expected in case["greedy_ids"]:
                best = torch.topk(model(torch.tensor([ids])).logits[0, -1], 2)
                if best.indices[0].item() != expected:
                    margin = (best.values[0] - best.values[1]).item()
                    assert margin < LOGIT_TOLERANCE, (case["prompt"], equal, margin)
                    break
                equal += 1
                ids.append(expected)
    return equal


def load_model(golden):
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(MODEL, gguf_file=GGUF, dtype=torch.float32).eval()
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 3_672_320, parameters
    equal = compare(model, golden)
    # What was read from GGUF may not be written again; the same parameters in a new model may.
    plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(MODEL), dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.push_to_hub(f"{MODEL}-torch")
    again = AutoModelForCausalLM.from_pretrained(f"{MODEL}-torch", dtype=torch.float32).eval()
    for (name, one), (other, two) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(one, two), name
    assert compare(again, golden[:1]) > 0
    info = HfApi().model_info(f"{MODEL}-torch")
    assert info.safetensors.total == parameters, info.safetensors
    total = sum(len(case["greedy_ids"]) for case in golden)
    print(f"torch {torch.__version__}: {parameters} parameters from GGUF and safetensors, {equal} of {total} greedy tokens equal")
    assert equal >= total // 2, equal


if __name__ == "__main__":
    golden = json.loads((FIXTURES / "golden.json").read_text())
    push()
    load_config_and_tokenizer(golden)
    if os.environ["HEAVY"] == "1":
        load_model(golden)
