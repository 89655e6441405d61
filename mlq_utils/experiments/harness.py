"""The lm-evaluation-harness on models of `modeling`. Importing this needs the extra `nlu`.

The harness wants a transformers tokenizer, and how one of LLaMA's is loaded changes its ids. Here
it gets the ids of our own tokenizer, after BOS where the model has one, as in LLaMA's.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mlq_utils.experiments.nlu_data import TASKS, Data, Task
from mlq_utils.modeling import Model
from mlq_utils.modeling.translation import context_length


class _Words:
    """What the harness asks of a transformers tokenizer, answered by ours."""

    def __init__(self, base: Model) -> None:
        self.bos_token_id, self.eos_token_id, self.pad_token_id = base.bos, base.eos, base.pad
        self.vocab_size = len(base.tokenizer)
        self.name_or_path = base.name
        self._words = base.tokenizer

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        opened = add_special_tokens and self.bos_token_id is not None
        return [self.bos_token_id] * opened + self._words.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text up to the end of the text; what follows is padding."""
        ids = list(map(int, ids))
        return self._words.decode(
            ids[: ids.index(self.eos_token_id)] if self.eos_token_id in ids else ids
        )

    def batch_decode(self, batch: torch.Tensor) -> list[str]:
        return [self.decode(row) for row in batch.tolist()]

    def sign(self, token: int) -> str:
        """Return how a special token is written: as text it is empty, which is in every text."""
        backend = self._words.backend
        return (backend.id_to_piece if hasattr(backend, "id_to_piece") else backend.id_to_token)(
            token
        )


class Harness(HFLM):
    """A model as the harness takes it.

    Attributes:
        truncated: How many requests lost their beginning, being longer than the model's context.
    """

    def __init__(self, base: Model, batch_size: int) -> None:
        """Wrap a model, on its device.

        Raises:
            ValueError: The model's configuration does not say how long a text may be.
        """
        self._words, self.truncated = _Words(base), 0
        with quiet():
            super().__init__(
                pretrained=base.model,
                backend="causal",
                max_length=context_length(base.model),
                batch_size=batch_size,
                softmax_dtype="float32",  # sums of bf16 tie, and the first choice wins
            )

    def _create_tokenizer(self, *args: Any, **kwargs: Any) -> None:
        self.tokenizer = self._words

    @property
    def max_gen_toks(self) -> int:
        """The cap on new tokens: the harness's, or half the context of a model with less."""
        return min(super().max_gen_toks, self.max_length // 2)

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """Return the ids of a text; its last ones where `left_truncate_len` says how many."""
        ids = self._words.encode(string, add_special_tokens is not False)
        return ids[-left_truncate_len:] if left_truncate_len else ids

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids, padded on the left, and which of them are no padding."""
        rows = [self.tok_encode(text) for text in strings]
        if left_truncate_len:
            self.truncated += sum(len(row) > left_truncate_len for row in rows)
            rows = [row[-left_truncate_len:] for row in rows]
        width = max(map(len, rows))
        pad = [[self._words.pad_token_id] * (width - len(row)) for row in rows]
        ids = torch.tensor([blank + row for blank, row in zip(pad, rows, strict=True)])
        mask = torch.tensor([[0] * len(blank) + [1] * (width - len(blank)) for blank in pad])
        return ids, mask

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Return the text of ids, or how a single special token is written."""
        return self._words.sign(tokens) if isinstance(tokens, int) else self._words.decode(tokens)

    def _loglikelihood_tokens(self, requests: list, *args: Any, **kwargs: Any) -> list:
        most = self.max_length
        self.truncated += sum(len(context) + len(text) > most + 1 for _, context, text in requests)
        # The harness cuts contexts, and stops at a longer continuation: cut it in the same way.
        cut = [(words, context, text[-most:]) for words, context, text in requests]
        return super()._loglikelihood_tokens(cut, *args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return super()._model_generate(*args, **kwargs, eos_token_id=self._words.eos_token_id)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep from being shown the harness's advice on its own command line, and `datasets`' bars."""
    logger, bars = logging.getLogger("lm_eval"), datasets.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()  # they leave widgets in notebooks
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def manager() -> TaskManager:
    """Return the harness's own definitions of the five tasks."""
    folder = Path(lm_eval.__file__).parent / "tasks"
    with quiet():
        return TaskManager(
            include_defaults=False, include_path=[folder / task.yaml for task in TASKS.values()]
        )


def score(
    model: Harness,
    tasks: TaskManager,
    task: Task,
    language: str,
    data: Data,
    limit: int | None,
) -> dict[str, Any]:
    """Return what the harness finds for a task in a language, without examples in the prompt.

    Args:
        model: The model.
        tasks: As `manager` returns them.
        task: The task.
        language: Its language.
        data: Its examples.
        limit: The first so many examples only; all where None.

    Returns:
        `score` and `stderr` in percent (`stderr` None for one example), `samples`, `truncated`
        (requests that were longer than the context) and `version` (of the task's definition).
    """
    name = task.harness.format(language=language)
    changes = dict(task.overrides)
    if data.examples is None:
        changes["dataset_kwargs"] = {"revision": data.source["revision"]}
    else:
        split = {"test": datasets.Dataset.from_list(data.examples)}
        changes |= {"custom_dataset": lambda **_: split, "test_split": "test"}
        changes |= {"training_split": None, "validation_split": None}
    model.truncated = 0
    with quiet():
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[{"group": "nlu", "task": [{"task": name, **changes}]}],
            task_manager=tasks,
            num_fewshot=0,
            limit=limit,
            log_samples=False,
        )
    scores = found["results"][name]
    metric, _, rule = task.metric.partition(",")
    error = scores[f"{metric}_stderr,{rule}"]
    known = isinstance(error, float) and math.isfinite(error)
    return {
        "score": 100 * scores[task.metric],
        "stderr": 100 * error if known else None,
        "samples": found["n-samples"][name]["effective"],
        "truncated": model.truncated,
        "version": found["versions"][name],
    }
