"""Checks that everything that the chapters need is here, before the first of them starts."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import requests

from mlq_utils import corpora, experiments, paper, scoring, tokenization
from mlq_utils.experiments import nlu, scales, tables

Parameters = Mapping[str, Any]


def makes_runs(parameters: Parameters) -> bool:
    """Return whether a chapter with these parameters makes missing runs of the paper's tables."""
    return parameters.get("runs_at_most", 0) != 0


def missing(chapters: Iterable[Parameters]) -> list[str]:
    """Return what keeps chapters with these parameters from running.

    Returns:
        One line for each thing that is damaged, or is missing and cannot be downloaded. The line
        names the thing and the remedy.
    """
    lines: list[str] = []
    for number in range(1, 17):
        lines += _complaint(paper.table, number)
    for name in ("fertility", "shortening"):
        lines += _complaint(tokenization.recorded, name)
    if corpora.find("flores200"):
        lines += _complaint(corpora.texts, "flores200", "devtest")
    makes: dict[tuple[str, str | None, str | None], bool] = {}  # whether a scale's runs are made
    for parameters in chapters:
        if tokenizer := parameters.get("tokenizer"):
            lines += _complaint(tokenization.load, tokenizer)
        lines += _corpus(parameters.get("corpus", "cldr"))
        tasks = parameters.get("nlu_tasks") or []
        if tasks and not find_spec("lm_eval"):
            lines.append('the package lm-eval, for nlu_tasks: pip install "mlq_utils[nlu]"')
        for task in tasks:
            lines += _complaint(_read_task, task)
        scale = tuple(parameters.get(name) for name in ("scale", "base", "revision"))
        if makes_runs(parameters) or tasks:
            makes[scale] = makes.get(scale, False) or makes_runs(parameters)
    for (name, base, revision), runs in makes.items():
        lines += _scale(name or "mini", base, revision, runs)
    return list(dict.fromkeys(lines))


def _complaint(check: Callable[..., object], *arguments: Any) -> list[str]:
    """Return the message of the error that a check raises, if it raises one."""
    try:
        check(*arguments)
    except (OSError, ValueError) as error:
        return [str(error)]
    return []


def _read_task(task: str) -> None:
    for language in nlu.TASKS[task]["languages"]:
        nlu.read(task, language)


def _scale(name: str, base: str | None, revision: str | None, runs: bool) -> Iterator[str]:
    """Yield what the base of a scale lacks and, with `runs`, all that its missing runs lack."""
    try:
        scale = scales.named(name, base=base, revision=revision)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    specs = {spec.identity(): spec for spec in tables.specs(scale=scale) if runs}
    known = experiments.default_store().get_all(specs)
    left = [spec for key, spec in specs.items() if known[key] is None]
    if left or not runs:
        yield from _weights(scale.untuned.base, scale.untuned.revision)
    needed = {spec.test[0] for spec in left}
    needed |= {name for spec in left if spec.languages for name in spec.corpus}
    needed |= {spec.extension.text for spec in left if spec.extension}
    for corpus in sorted(needed):
        yield from _corpus(corpus)
    if any(spec.test[0] != "cldr" for spec in left):
        yield from _complaint(scoring.check_flores101)
    if left and scale.untuned.base != "mini" and not os.environ.get("MLQ_CLUSTER"):
        import torch

        if not torch.cuda.is_available():
            yield (
                f"a GPU, for runs of {scale.untuned.base}. `mlq sweep plan` tells what "
                "memory and time they take. Set MLQ_CLUSTER to a Dask scheduler with GPUs"
            )


def _weights(base: str, revision: str | None) -> Iterator[str]:
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    if base == "mini" or Path(base).expanduser().is_dir():
        return
    for file in ("model.safetensors", "model.safetensors.index.json"):
        if isinstance(try_to_load_from_cache(base, file, revision=revision), str):
            return
    address = hf_hub_url(base, "config.json", revision=revision)
    if constants.HF_HUB_OFFLINE or not _online(address):
        yield (
            f"the weights of {base}, which are neither here nor at {address} for this machine. "
            "Download them where there is a network, and set the parameter `base` to their folder"
        )


def _corpus(name: str) -> Iterator[str]:
    if corpora.find(name):
        return
    corpus = corpora.CORPORA[name]
    remedy = f"Get it from {corpus.origin or corpus.url} and put the folder {corpus.folder}"
    remedy += " into the folder that MLQ_DATA names"
    if not corpus.url:
        yield f"the corpus {name}, which cannot be downloaded by a program. {remedy}"
    elif not _online("{0.scheme}://{0.netloc}".format(urlparse(corpus.url))):
        yield f"the corpus {name}, which cannot be downloaded without a network. {remedy}"


@cache
def _online(address: str) -> bool:
    """Return whether a server answers. If the address names a page, it must have the page."""
    try:
        with requests.get(address, timeout=10, stream=True) as response:
            return response.ok or urlparse(address).path in ("", "/")
    except requests.RequestException:
        return False
