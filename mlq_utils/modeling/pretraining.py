"""Pretraining of the mini base model: a LLaMA of three million parameters, on a core or a GPU.

    mlq pretrain --seed 0 --folder base

Everything follows from the seed. The result is a model folder in Hugging Face's format with
`pretraining.json`: the recipe, the share of each language in documents and in tokens, the losses,
and versions. Until it is complete the folder holds a checkpoint, from which an interrupted call
goes on.
"""

import json
import math
import shutil
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, get_wsd_schedule

from mlq_utils import tokenization
from mlq_utils.corpora import cldr
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.modeling import checkpoint, pretraining_text
from mlq_utils.modeling.distributed import hardware, placement
from mlq_utils.modeling.precision import DTYPES, choose_precision, computing_in
from mlq_utils.modeling.pretraining_text import Mix
from mlq_utils.modeling.training import allocate
from mlq_utils.tokenization.tokenizer import Tokenizer

ARCHITECTURE = pretraining_text.SETTINGS["architecture"]
"""Arguments of `LlamaConfig` besides the size of the vocabulary. Those of a recipe's `architecture`
replace them."""
RECIPE = {"mix": asdict(Mix())} | pretraining_text.SETTINGS["recipe"]
"""How the packaged base was made; `pretraining.yaml` in the package data explains it."""
PIECE_PHRASES = 2000
"""Number of phrases for the tokenizer in each language of a recipe's `pieces`."""
SAVE_EVERY = 60.0
"""Seconds between checkpoints."""
COMPILE_FROM = 500
"""Fewest steps for which compiling the model, which takes a minute or two, pays."""


def train_tokenizer(seed: int, recipe: dict = RECIPE) -> Tokenizer:
    """Train the base's tokenizer on documents without traces of other languages.

    Args:
        seed: Random seed for the documents.
        recipe: See `RECIPE`.
    """
    mix = Mix(**recipe["mix"] | {"traces": 0, "doses": {}})
    unread, drawn = {*mix.ciphers} - {"en"}, pretraining_text.documents(seed, mix)
    known = (document for document in drawn if not unread.intersection(document.languages))
    documents = islice(known, recipe["tokenizer_documents"])
    # Lines are sentences here, so that a line break is left to its byte, as in LLaMA.
    lines = (line for d in documents for line in f"{d.text}\n{d.answer}".split("\n") if line)
    more = (line for code in recipe.get("pieces", ()) for line in _phrases(code, seed))
    kind = tokenization.train_byte_level if recipe.get("byte_level") else tokenization.train
    return kind(chain(lines, more), recipe["vocabulary_size"], f"mini {seed}")


def _phrases(code: str, seed: int) -> list[str]:
    """Return phrases in a language that gets pieces of its own."""
    text = cldr.pairs(code, "train", PIECE_PHRASES, seed=pretraining_text.STREAM + seed)
    return text["target"].tolist()


def pack(tokenizer: Tokenizer, seed: int, recipe: dict = RECIPE) -> tuple[np.ndarray, dict]:
    """Draw documents and pack them, each between BOS and EOS, into sequences.

    Args:
        tokenizer: Tokenizer of the base.
        seed: Random seed for the documents.
        recipe: See `RECIPE`. It decides how many tokens are needed.

    Returns:
        An array of shape (steps * batch_size, sequence_length); and the number of documents and
        tokens by kind and by language. A document in several languages counts for each of them,
        and its tokens are shared equally.
    """
    shape = (recipe["steps"] * recipe["batch_size"], recipe["sequence_length"])
    stream = pretraining_text.documents(seed, Mix(**recipe["mix"]))
    bos, eos = (ARCHITECTURE[f"{name}_token_id"] for name in ("bos", "eos"))
    ids: list[int] = []
    record = {k: Counter() for k in ("documents", "tokens", "language_documents")}
    shares: Counter[str] = Counter()
    while len(ids) < shape[0] * shape[1]:
        documents = list(islice(stream, 4096))
        texts = tokenizer.encode([d.text for d in documents])
        answers = tokenizer.encode([d.answer for d in documents])
        for document, text, answer in zip(documents, texts, answers, strict=True):
            row = [bos, *text, *(answer if document.answer else []), eos]
            ids += row
            record["documents"][document.kind] += 1
            record["tokens"][document.kind] += len(row)
            for language in document.languages:
                record["language_documents"][language] += 1
                shares[language] += len(row) / len(document.languages)
    record["language_tokens"] = {k: round(v) for k, v in shares.items()}
    packed = np.array(ids[: shape[0] * shape[1]], dtype=np.uint16).reshape(shape)
    return packed, {k: dict(Counter(v).most_common()) for k, v in record.items()}


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
    """Pretrain a base model and write it into a folder.

    Args:
        folder: Folder for the model.
        seed: Random seed for the text, the tokenizer's text and the weights. Defaults to 0.
        recipe: See `RECIPE`, which is the default.

    Returns:
        The model.

    Raises:
        FloatingPointError: The loss became NaN or infinite.
        ValueError: The folder holds the checkpoint of another base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(seed, recipe)
    packed, text = pack(tokenizer, seed, recipe)
    torch.manual_seed(seed)
    architecture = ARCHITECTURE | recipe.get("architecture", {})
    config = LlamaConfig(vocab_size=len(tokenizer), **architecture)
    model = AutoModelForCausalLM.from_config(config).to(device := placement()[0])
    both = optimizers(model, recipe)
    steps = {"num_training_steps": recipe["steps"], "num_decay_steps": recipe["steps"] // 2}
    steps["num_warmup_steps"] = recipe["warmup_steps"]
    shape = {"decay_type": "linear", "min_lr_ratio": recipe["final_share"]}
    rates = [get_wsd_schedule(optimizer, **steps, **shape) for optimizer in both]
    for optimizer in both:
        allocate([p for group in optimizer.param_groups for p in group["params"]], optimizer)
    if recipe["steps"] >= COMPILE_FROM and shutil.which("c++"):
        torch._dynamo.config.suppress_errors = True  # what does not compile is computed as it is
        model.forward = torch.compile(model.forward)
    path, weights = folder / "checkpoint.safetensors", dict(model.named_parameters())
    moments = {weight: kept for optimizer in both for weight, kept in optimizer.state.items()}
    run = checkpoint.identity(model, seed, recipe, architecture)
    progress = checkpoint.load(path, run, weights, moments) or {"losses": [], "seconds": 0.0}
    losses, before = progress["losses"], progress["seconds"]
    for rate in rates * len(losses):
        rate.step()
    start = saved = perf_counter()
    for step in tqdm(range(len(losses), recipe["steps"]), desc="steps", disable=None):
        rows = slice(step * recipe["batch_size"], (step + 1) * recipe["batch_size"])
        ids = torch.from_numpy(packed[rows].astype(np.int64)).to(device)
        loss = _step(model, both, ids, recipe)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}")
        losses.append(loss)
        for rate in rates:
            rate.step()
        now = perf_counter()
        progress["seconds"] = before + now - start
        if now - saved >= SAVE_EVERY:
            checkpoint.save(path, run, progress, weights, moments)
            saved = now
    vars(model).pop("forward", None)  # the compiled one
    record = {"seed": seed, "recipe": recipe, "text": text, "seconds": round(progress["seconds"])}
    record["architecture"] = architecture | {"parameters": model.num_parameters()}
    _write(folder, model.cpu(), tokenizer, record, losses)
    path.unlink(missing_ok=True)
    return model


def _step(
    model: LlamaForCausalLM, both: list[torch.optim.Optimizer], ids: torch.Tensor, recipe: dict
) -> float:
    with computing_in(model, DTYPES[choose_precision(model)]):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["max_grad_norm"])
    for optimizer in both:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _write(
    folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, record: dict, losses: list[float]
) -> None:
    """Write the model, its tokenizer, its record and its card."""
    model.save_pretrained(folder)
    if record["recipe"].get("byte_level"):
        tokenizer.backend.save(str(folder / "tokenizer.json"))
    else:
        (folder / "tokenizer.model").write_bytes(tokenizer.backend.serialized_model_proto())
    every = max(1, len(losses) // 100)
    means = {n: float(np.mean(losses[n : n + every])) for n in range(0, len(losses), every)}
    record = record | {
        "loss": {str(n): round(mean, 4) for n, mean in means.items()},
        "hardware": hardware(),
        "versions": {p: version(p) for p in ("torch", "transformers", "sentencepiece", "babel")},
    }
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", "utf8")
    (folder / "README.md").write_text(card(record), "utf8")


def card(record: dict) -> str:
    """Return the model card of a base, given the contents of its `pretraining.json`."""
    text, inside = record["text"], pretraining_text.pretraining_languages()
    tokens = sum(text["tokens"].values())
    english, others = (
        sum(text["language_tokens"].get(code, 0) for code in codes) / tokens
        for codes in (["en"], inside)
    )
    template = (PACKAGE_DATA / "base_card.md").read_text("utf8")
    return template.format(
        **record,
        languages=", ".join(["en", *inside]),
        documents=sum(text["documents"].values()),
        tokens=tokens,
        english=english,
        others=others,
        traces=1 - english - others,
        minutes=record["seconds"] / 60,
    )
