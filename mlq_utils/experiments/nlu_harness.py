"""Models and tasks as lm-evaluation-harness takes them. Importing this needs the extra `nlu`."""

import logging
import math
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from mlq_utils import modeling
from mlq_utils.modeling.memory import halving, phase

PROBE = "Thursday, January 9, 2003: joi, 9 ianuarie 2003, និង রোমানিয়া"
"""Text that a converted tokenizer must split as SentencePiece does."""


@phase("loading the model")
def load(base: str, revision: str | None, spare_rows: int, batch_size: int) -> HFLM:
    """Return a model for the harness. For arguments and errors see `nlu.evaluate`."""
    device, dtype = modeling.placement()
    loaded = modeling.load(base, revision=revision, dtype=dtype, spare_rows=spare_rows)
    # Some configurations of LLaMA name another EOS than their tokenizers have.
    loaded.model.generation_config.eos_token_id = loaded.eos
    return HFLM(
        loaded.model.to(device),
        backend="causal",
        tokenizer=transformers_tokenizer(loaded),
        add_bos_token=loaded.bos is not None,
        max_length=modeling.context_length(loaded.model),
        batch_size=batch_size,
        softmax_dtype="float32",  # sums in bf16 would tie, and the first choice win
    )


def transformers_tokenizer(base: modeling.Model) -> PreTrainedTokenizerFast:
    """Return a model's tokenizer as transformers has it.

    For SentencePiece it is `LlamaTokenizer`, which differs only on doubled and leading spaces.
    `AutoTokenizer` would leave out the space that SentencePiece puts before a text.

    Raises:
        ValueError: The conversion gives other ids than SentencePiece for ordinary text.
    """
    backend = base.tokenizer.backend
    if not hasattr(backend, "serialized_model_proto"):
        eos = backend.id_to_token(base.eos)
        bos = None if base.bos is None else backend.id_to_token(base.bos)
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.model").write_bytes(backend.serialized_model_proto())
        found = LlamaTokenizer.from_pretrained(folder, add_bos_token=base.bos is not None)
    if found.encode(PROBE, add_special_tokens=False) != base.tokenizer.encode(PROBE):
        raise ValueError(f"transformers cannot apply the SentencePiece model of {base.name}")
    return found


def score(
    model: HFLM,
    task: dict[str, Any],
    language: str,
    examples: list[dict[str, Any]],
    limit: int | None,
) -> dict[str, Any]:
    """Score a task in a language by the harness's definition, on examples that we have read.

    Args:
        model: The model. Its batch size is halved for good each time memory runs out.
        task: A value of `nlu.TASKS`.
        language: One of its languages.
        examples: See `nlu.read`.
        limit: Number of examples to score, or None for all.

    Returns:
        What a record holds besides its specification; see `nlu.evaluate`.
    """
    datasets.disable_progress_bars()  # they leave widgets in notebooks
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # hints on its own command line
    name, metric = task["harness"].format(language=language), task["metric"]
    docs = {"test": datasets.Dataset.from_list(examples)}
    changes = {
        "task": name,
        "custom_dataset": lambda **_: docs,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "num_fewshot": 0,
    }
    definitions = Path(lm_eval.__file__).parent / "tasks" / task["definitions"]
    manager = TaskManager(include_path=definitions, include_defaults=False)
    tasks = manager.load([{"group": "nlu", "task": [changes]}])

    def compute(batch_size: int) -> dict[str, Any]:
        model.batch_size_per_gpu = batch_size
        return lm_eval.evaluate(model, tasks, limit=limit)

    with phase(f"scoring {name} by one request at a time"):
        found, _ = halving(compute, model.batch_size_per_gpu, "requests")
    scores = found["results"][name]
    error = scores[metric.replace(",", "_stderr,")]
    return {
        "metric": metric,
        "score": 100 * scores[metric],
        "stderr": 100 * error if isinstance(error, float) and math.isfinite(error) else None,
        "samples": found["n-samples"][name]["effective"],
        "truncated": _truncated(model, found["samples"][name], metric.partition(",")[2]),
        "version": found["versions"][name],
        "hardware": modeling.hardware(),
        "precision": str(model.model.dtype).removeprefix("torch."),
        "versions": {p: version(p) for p in ("mlq_utils", "torch", "transformers", "lm_eval")},
    }


def _truncated(model: HFLM, samples: list[dict[str, Any]], rule: str) -> int:
    """Return how many requests are longer than the model's context."""
    count = 0
    for sample in samples:
        for context, rest in sample["arguments"] if sample["filter"] == rule else ():
            asked = isinstance(rest, dict)  # for new text, rather than for a text's probability
            length = len(model.tok_encode(context if asked else context + rest))
            count += length + (model.max_gen_toks if asked else -1) > model.max_length
    return count
