"""Pretraining of the mini base model: a LLaMA of three million parameters, on two cores.

    mlq pretrain --seed 0 --folder base

Everything follows from the seed. The text is drawn and packed first, so that a run that was
interrupted goes on from its last checkpoint with the same batches; checkpoints are safetensors.
What is written at the end is a model folder in Hugging Face's format, with `pretraining.json`: the
recipe, the share of each language in documents and in tokens, the loss as it fell, versions.
"""

import hashlib
import json
import math
import os
import platform
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from mlq_utils import tokenization
from mlq_utils.modeling import checkpoint as _checkpoint
from mlq_utils.modeling import pretraining_text
from mlq_utils.modeling.distributed import fast_bf16
from mlq_utils.modeling.pretraining_text import Mix
from mlq_utils.tokenization.tokenizer import Tokenizer

CPU = torch.device("cpu")
BOS, EOS = 1, 2
"""Ids that SentencePiece gives by default."""
ARCHITECTURE = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,  # Embed FT trains the input embeddings and not the head
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
RECIPE = {
    "mix": asdict(Mix()),
    "vocabulary_size": 3072,
    "tokenizer_documents": 80_000,
    "sequence_length": 256,
    "batch_size": 16,
    "steps": 2_350,
    "warmup_steps": 30,
    "final_share": 0.03,
    "muon": {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.01},
    "adamw": {"lr": 4e-3, "betas": (0.9, 0.95), "weight_decay": 0.0},
    "max_grad_norm": 1.0,
}
"""9.6 million tokens. Muon trains the hidden matrices, AdamW the embeddings, head and norms."""
CHECKPOINT_EVERY = 200


def train_tokenizer(seed: int, recipe: dict = RECIPE) -> Tokenizer:
    """Train the base's tokenizer on documents without traces of other languages.

    Lines are sentences here, so that a line break falls to its byte, as in LLaMA.
    """
    drawn = pretraining_text.documents(seed, Mix(**recipe["mix"] | {"traces": 0}))
    documents = islice(drawn, recipe["tokenizer_documents"])
    lines = (line for d in documents for line in f"{d.text}\n{d.answer}".split("\n") if line)
    return tokenization.train(lines, recipe["vocabulary_size"], f"mini {seed}")


def pack(tokenizer: Tokenizer, seed: int, recipe: dict = RECIPE) -> tuple[np.ndarray, dict]:
    """Draw documents and pack them, each between BOS and EOS, into sequences.

    Args:
        tokenizer: The base's.
        seed: Of the documents.
        recipe: `steps`, `batch_size` and `sequence_length` say how many tokens are needed.

    Returns:
        An array of shape (steps * batch_size, sequence_length), and the record of the text:
        documents and tokens by kind, and by language. A document in several languages counts for
        each of them; its tokens are shared equally.
    """
    shape = (recipe["steps"] * recipe["batch_size"], recipe["sequence_length"])
    stream = pretraining_text.documents(seed, Mix(**recipe["mix"]))
    ids: list[int] = []
    record = {k: Counter() for k in ("documents", "tokens", "language_documents")}
    shares: Counter[str] = Counter()
    bar = tqdm(total=shape[0] * shape[1], unit=" tokens", desc="text", disable=None)
    while len(ids) < shape[0] * shape[1]:
        documents = list(islice(stream, 4096))
        texts = tokenizer.encode([d.text for d in documents])
        answers = tokenizer.encode([d.answer for d in documents])
        for document, text, answer in zip(documents, texts, answers, strict=True):
            row = [BOS, *text, *(answer if document.answer else []), EOS]
            ids += row
            record["documents"][document.kind] += 1
            record["tokens"][document.kind] += len(row)
            for language in document.languages:
                record["language_documents"][language] += 1
                shares[language] += len(row) / len(document.languages)
        bar.update(len(ids) - bar.n)
    bar.close()
    record["language_tokens"] = {k: round(v) for k, v in shares.items()}
    packed = np.array(ids[: shape[0] * shape[1]], dtype=np.uint16).reshape(shape)
    return packed, {k: dict(Counter(v).most_common()) for k, v in record.items()}


def learning_rate(step: int, recipe: dict = RECIPE) -> float:
    """Return the share of the full learning rate at a step.

    Linear warm-up, constant until half of the steps, then linear to `final_share`.
    """
    half = recipe["steps"] / 2
    fall = max(0.0, (step - half) / half)
    return min((step + 1) / recipe["warmup_steps"], 1 - fall * (1 - recipe["final_share"]))


def optimizers(model: LlamaForCausalLM, recipe: dict = RECIPE) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for everything else."""
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in hidden}
    others = [p for p in model.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(hidden, **recipe["muon"]),
        torch.optim.AdamW(others, **recipe["adamw"]),
    ]


def pretrain(folder: Path, seed: int = 0, recipe: dict = RECIPE) -> LlamaForCausalLM:
    """Pretrain a base model, or go on with one, and write it into a folder.

    Args:
        folder: Where it goes; `checkpoint` inside it is removed at the end.
        seed: Of the text, the tokenizer's text and the weights.
        recipe: As `RECIPE`.

    Returns:
        The model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed, recipe)
    packed, text = pack(tokenizer, seed, recipe)
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tokenizer), **ARCHITECTURE)
    # torch's fused attention goes backward in bf16 at a fraction of its fp32 speed on the CPU.
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    both = optimizers(model, recipe)
    checkpoint, weights = folder / "checkpoint", dict(model.named_parameters())
    run = _checkpoint.identity(model, seed, recipe, hashlib.sha256(packed).hexdigest())
    log: list[float] = []
    if checkpoint.exists():
        log = (_checkpoint.load(checkpoint, run, weights, *both) or {"losses": []})["losses"]
    rates = [group["lr"] for o in both for group in o.param_groups]
    start, before = perf_counter(), len(log)
    bar = tqdm(range(before, recipe["steps"]), initial=before, desc="steps", disable=None)
    for step in bar:
        groups = [group for o in both for group in o.param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * learning_rate(step, recipe)
        rows = slice(step * recipe["batch_size"], (step + 1) * recipe["batch_size"])
        loss = _step(model, both, torch.from_numpy(packed[rows].astype(np.int64)), recipe)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        log.append(loss)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _checkpoint.save(checkpoint, run, {"losses": log}, weights, *both)
    seconds = perf_counter() - start
    _write(folder, model, tokenizer, seed, recipe, text, log, seconds)
    return model


def _step(
    model: LlamaForCausalLM, both: list[torch.optim.Optimizer], ids: torch.Tensor, recipe: dict
) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16(CPU)):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["max_grad_norm"])
    for optimizer in both:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _write(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    seed: int,
    recipe: dict,
    text: dict,
    log: list[float],
    seconds: float,
) -> None:
    model.save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(tokenizer.backend.serialized_model_proto())
    every = max(1, len(log) // 100)
    record = {
        "seed": seed,
        "recipe": recipe,
        "architecture": ARCHITECTURE | {"parameters": model.num_parameters()},
        "text": text,
        "loss": {
            str(n): round(float(np.mean(log[n : n + every])), 4) for n in range(0, len(log), every)
        },
        "seconds": round(seconds),
        "hardware": f"{os.cpu_count()} {platform.machine()} cores, bf16 {fast_bf16(CPU)}",
        "versions": {p: version(p) for p in ("torch", "transformers", "sentencepiece", "babel")},
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", "utf8")
    (folder / "README.md").write_text(card(record), "utf8")
    (folder / "checkpoint").unlink(missing_ok=True)


def card(record: dict) -> str:
    """Return the model card that goes with a base, from its `pretraining.json`."""
    text, recipe, seed = record["text"], record["recipe"], record["seed"]
    documents, tokens = sum(text["documents"].values()), sum(text["tokens"].values())
    inside = ["en", *pretraining_text.pretraining_languages()]
    english, others = (
        sum(text["language_tokens"].get(code, 0) for code in codes) / tokens
        for codes in (inside[:1], inside[1:])
    )
    sequences = f"{recipe['batch_size']} sequences of {recipe['sequence_length']} tokens"
    parameters, pieces = record["architecture"]["parameters"], recipe["vocabulary_size"]
    return f"""---
license: mit
language: [{", ".join(inside)}]
---
# The mini base model of mlq_utils

A LLaMA of {parameters:,} parameters with untied embeddings and a SentencePiece BPE tokenizer of
{pieces:,} pieces with byte fallback, for experiments on two cores. It is to phrases composed from
the Unicode CLDR what an English-centric LLaMA is to text; it knows nothing else.

* **Text**: {documents:,} documents, {tokens:,} tokens drawn with seed {seed} by
  `mlq_utils.modeling.pretraining_text`. By tokens {english:.1%} English, {others:.1%} the 19 other
  languages of LLaMA's Wikipedia text, {1 - english - others:.1%} traces of others;
  `pretraining.json` has the share of each. No translation in the prompt of fine-tuning, no phrase
  of the test split.
* **Training**: {recipe["steps"]:,} steps of {sequences}, Muon for the matrices of the layers and
  AdamW for the rest; {record["seconds"] / 60:.0f} minutes on {record["hardware"]}.
  To retrain it: `mlq pretrain --seed {seed} --folder FOLDER`.
* **Licence**: MIT; the CLDR data that the text is composed of is under the Unicode License V3.
"""
