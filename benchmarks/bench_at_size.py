"""Speed of tuning and translation for a model of a given shape, with random weights.

    python -m benchmarks at_size --shape llama-7b --record

Speed does not depend on the values of the weights, so nothing needs to be downloaded. Sentences are
random tokens with the lengths of English and Romanian in FLORES-200 with LLaMA's tokenizer. A model
with random weights hardly ever ends a sentence, so that both programs translate up to the cap.
"""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pandas as pd
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from mlq_utils import modeling
from mlq_utils.data import one_of
from mlq_utils.modeling import batches
from mlq_utils.modeling.distributed import placement
from mlq_utils.modeling.strategies import decoder_layers

SHAPES = {
    "llama-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20},
    "llama-300m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
"""The shape of LLaMA-7B, and smaller ones for machines without a GPU."""
HEAD_WIDTH = {"llama-7b": 128, "llama-1b": 64, "llama-300m": 64, "tiny": 16}
VOCABULARY = 32_000
BLOCK = 1024
"""Number of tokens to which the released recipe pads every example."""
LENGTHS = {"prompt": (68, 15), "target": (53, 20)}
"""Mean and standard deviation of the number of tokens, of a prompt with its English sentence and of
a Romanian sentence."""
FLOPS = {"embed": 4, "full": 6}
"""Operations per parameter and token: the forward pass, the gradients of activations and, in full
FT, those of weights."""

TARGETS = {
    "embed_share_of_matrix_rate": (0.55, "at least"),
    "full_share_of_matrix_rate": (0.5, "at least"),
    "embed_vs_recipe": (3.0, "at least"),
    "translation_vs_generate_at_size": (3.0, "at least"),
    "embed_peak_vs_estimate": (1.0, "within 10%"),
    "full_peak_vs_estimate": (1.0, "within 10%"),
}
"""The ratio that each figure should reach, and whether it is a minimum."""


@dataclass(frozen=True)
class _Numbers:
    """A tokenizer of texts that consist of token ids."""

    def __len__(self) -> int:
        return VOCABULARY

    def encode(self, texts: str | Sequence[str]) -> list:
        if isinstance(texts, str):
            return [int(number) for number in texts.split()]
        return [self.encode(text) for text in texts]


def random_base(shape: str) -> modeling.Model:
    """Return a model of a shape with random weights, on the device that runs are computed on."""
    sizes = SHAPES[one_of("shape", shape, SHAPES)]
    heads = sizes["hidden_size"] // HEAD_WIDTH[shape]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        **sizes,
    )
    device, dtype = placement()
    torch.manual_seed(0)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return modeling.Model(model.eval(), _Numbers(), shape, bos=1, eos=2, pad=0)


def sentences(count: int, seed: int = 0) -> pd.DataFrame:
    """Return pairs of random tokens in the columns `prompt` and `target`, with `LENGTHS`."""
    draw = random.Random(f"sentences {seed}")

    def side(name: str) -> str:
        length = max(8, round(draw.gauss(*LENGTHS[name])))
        return " ".join(str(draw.randrange(3, VOCABULARY)) for _ in range(length))

    return pd.DataFrame([{n: side(n) for n in LENGTHS} for _ in range(count)])


def matrix_rate(size: int | None = None) -> float:
    """Return the speed of products of square bf16 matrices, in operations per second."""
    device, _ = placement()
    size = size or (8192 if device.type == "cuda" else 2048)
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    runs, best = 20 if device.type == "cuda" else 5, 0.0
    for _ in range(3):
        one @ other
        wait(device)
        start = perf_counter()
        for _ in range(runs):
            one @ other
        wait(device)
        best = max(best, 2 * size**3 * runs / (perf_counter() - start))
    return best


def floating_operations(base: modeling.Model, data: batches.Examples, strategy: str) -> float:
    """Return the operations of a pass over examples, without padding and attention scores.

    The head is counted for labels only, since it need not be computed for other tokens.
    """
    body = sum(p.numel() for layer in decoder_layers(base.model) for p in layer.parameters())
    head = base.model.get_output_embeddings().weight.numel()
    tokens, labels = sum(map(len, data.ids)), data.labels(range(len(data.ids)))
    return FLOPS[strategy] * (body * tokens + head * labels)


def tuning(
    shape: str, steps: int, batch_size: int, strategies: Sequence[str] = tuple(FLOPS)
) -> dict[str, dict]:
    """Measure the share of the matrix rate, and the peak memory, of Embed FT and full FT."""
    rate, frame = matrix_rate(), sentences(steps * batch_size)
    device, _ = placement()
    what = f"{shape}, random weights, {steps} steps of {batch_size} pairs"
    results = {
        "matrix_rate": {"teraflops": rate / 1e12, "runs": 3, "what": "products of bf16 matrices"}
    }
    for strategy in strategies:
        base = random_base(shape)
        schedule = modeling.Schedule.paper(strategy, epochs=1, batch_size=batch_size)
        done = modeling.fine_tune(base, frame, strategy, schedule, progress=False)
        data = batches.examples(frame, base)
        share = floating_operations(base, data, strategy) / done.seconds / rate
        results[f"{strategy}_share_of_matrix_rate"] = {
            "ratio": share,
            "medians": [done.seconds, share * done.seconds],
            "runs": 1,
            "what": f"{strategy} FT of {what}, micro-batches of {done.micro_batch_tokens} tokens; "
            f"{FLOPS[strategy]} FLOPs per parameter and token",
        }
        if done.peak_bytes and done.estimated_peak_bytes:
            results[f"{strategy}_peak_vs_estimate"] = {
                "ratio": done.peak_bytes / done.estimated_peak_bytes,
                "megabytes": round(done.peak_bytes / 1e6),
                "runs": 1,
                "what": f"peak memory of {strategy} FT of {what}, against the estimate before it",
            }
        results[f"{strategy}_time_vs_estimate"] = {
            "ratio": done.seconds / done.estimated_seconds,
            "runs": 1,
            "what": f"seconds of {strategy} FT of {what}, against the estimate before it",
        }
        del base, done
        _free(device)
    return results


def against_recipe(shape: str, pairs: int) -> dict[str, dict]:
    """Measure Embed FT against the paper's released recipe, in one pass over the same pairs.

    The recipe is `transformers.Trainer` in half precision (fp16 on a GPU, bf16 elsewhere) with
    gradient checkpointing and every example padded to `BLOCK` tokens.
    """
    frame, device = sentences(pairs), placement()[0]
    schedule = modeling.Schedule.paper("embed", epochs=1, batch_size=pairs)
    base = random_base(shape)
    ours = modeling.fine_tune(base, frame, "embed", schedule, progress=False).seconds
    del base
    _free(device)
    base = random_base(shape)
    modeling.prepare(base.model, "embed")
    theirs = _recipe(base, batches.examples(frame, base), schedule)
    return {
        "embed_vs_recipe": {
            "ratio": theirs / ours,
            "medians": [theirs, ours],
            "runs": 1,
            "what": f"Embed FT of {shape}, random weights, {pairs} pairs once, against the "
            f"released recipe padded to {BLOCK} tokens",
        }
    }


def _recipe(base: modeling.Model, data: batches.Examples, schedule: modeling.Schedule) -> float:
    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        ids, labels, _ = batches.collate(data, [[i] for i in indices], base.pad)
        room = BLOCK - ids.shape[1]
        mask = torch.arange(BLOCK) < torch.tensor([len(data.ids[i]) for i in indices])[:, None]
        pad = torch.nn.functional.pad
        return {
            "input_ids": pad(ids, (0, room), value=base.pad),
            "labels": pad(labels, (0, room), value=batches.IGNORED),
            "attention_mask": mask.long(),
        }

    cuda = base.model.device.type == "cuda"
    base.model.config.use_cache = False
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            base.model,
            transformers.TrainingArguments(
                folder,
                num_train_epochs=schedule.epochs,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=max(1, schedule.batch_size // 4),
                learning_rate=schedule.learning_rate,
                fp16=cuda,
                bf16=not cuda,
                gradient_checkpointing=True,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=not cuda,
                dataloader_pin_memory=cuda,
            ),
            train_dataset=list(range(len(data.ids))),
            data_collator=collate,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        start = perf_counter()
        trainer.train()
        wait(base.model.device)
        return perf_counter() - start


def decoding(shape: str, count: int, cap: int) -> dict[str, dict]:
    """Measure beam search of beam size 4 against `model.generate` with its defaults."""
    base = random_base(shape)
    fast = modeling.for_translation(base)
    prompts = [[1, *ids] for ids in base.tokenizer.encode(list(sentences(count)["prompt"]))]

    def timed(model: LlamaForCausalLM, **options: Any) -> float:
        start = perf_counter()
        modeling.beam_search(model, prompts, max_new_tokens=cap, eos_id=base.eos, **options)
        wait(model.device)
        return perf_counter() - start

    if fast.model.device.type == "cuda":
        timed(fast.model)  # loads and chooses kernels
    ours = timed(fast.model)
    theirs = timed(base.model, engine="generate", batch_size=8)
    return {
        "translation_vs_generate_at_size": {
            "ratio": theirs / ours,
            "medians": [theirs, ours],
            "runs": 1,
            "what": f"{shape}, random weights, beam size 4, {count} sentences of {cap} new tokens, "
            "model.generate in batches of 8",
        }
    }


def at_size(shape: str | None = None) -> dict[str, dict]:
    """Run the benchmarks of this module, with the paper's batch on a GPU.

    Args:
        shape: A key of `SHAPES`. Defaults to "llama-7b" on a GPU and to "llama-300m" elsewhere.
    """
    gpu = placement()[0].type == "cuda"
    shape = shape or ("llama-7b" if gpu else "llama-300m")
    results = (
        tuning(shape, *((8, 128) if gpu else (4, 16)))
        | against_recipe(shape, 128 if gpu else 8)
        | decoding(shape, *((256, 96) if gpu else (32, 24)))
    )
    return {f"{shape} {key}": result for key, result in results.items()}


def targets(
    recorded: pd.DataFrame, shapes: Sequence[str] = ("llama-7b", "llama-300m")
) -> pd.DataFrame:
    """Return the measured ratios beside those that should be reached.

    Args:
        recorded: The result of `bench.load`.
        shapes: Shapes to list, whether they were measured or not.

    Returns:
        One row per shape and target: `shape`, `figure`, `target` (in words), `measured` (a ratio),
        `reached` and `hardware`. The ratio is missing, and `reached` is None, if nothing was
        measured.
    """
    rows = []
    for shape in shapes:
        for name, (wanted, how) in TARGETS.items():
            known = recorded.loc[f"{shape} {name}"] if f"{shape} {name}" in recorded.index else None
            value = None if known is None else known["ratio"]
            near = value is not None and abs(value - wanted) <= 0.1
            far = value is not None and value >= wanted
            rows.append(
                {
                    "shape": shape,
                    "figure": name,
                    "target": f"{wanted:g}, {how}",
                    "measured": value,
                    "reached": None if value is None else far if how == "at least" else near,
                    "hardware": "not measured" if known is None else known["hardware"],
                }
            )
    return pd.DataFrame(rows)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done all that was started on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
