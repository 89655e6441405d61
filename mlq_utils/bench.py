"""How fast the tokenizer analysis is, as ratios measured in one run: `make bench`.

Each pair is timed in turn, A B A B …, so that the ratio holds where the machine's speed drifts.
Written to `_build/bench.json`: per key the ratio of the medians, both medians in seconds, the
number of runs, and what was measured on what.
"""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from mlq_utils import measurements, tokenization

RUNS = 7
OUTPUT = Path("_build/bench.json")


def compare(first: Callable[[], object], second: Callable[[], object], runs: int = RUNS) -> dict:
    """Time two functions in turn, after one run of each that does not count.

    Returns:
        `ratio` (of the medians, first to second), `medians` in seconds, `runs`.
    """
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for function, spent in zip((first, second), times, strict=True):
            start = perf_counter()
            function()
            spent.append(perf_counter() - start)
    medians = [median(spent) for spent in times]
    return {"ratio": medians[0] / medians[1], "medians": medians, "runs": runs}


def main() -> None:
    """Measure, print and write."""
    if measurements.missing():
        what = "a tokenizer trained on CLDR, on CLDR text of all languages, 1012 sentences each"
        tokenizer = measurements.english_centric_tokenizer(3072)
        texts = measurements.texts("cldr", "test", 1012)
    else:
        what = "the LLaMA tokenizer on FLORES-200 devtest, all languages"
        tokenizer = tokenization.load("llama")
        texts = measurements.texts("flores200", measurements.SPLIT)
    shortener = tokenization.PrefixShortener.fit(tokenizer, texts["te"])

    def bare() -> None:
        for sentences in texts.values():
            tokenizer.backend.encode(sentences)

    def analysis() -> None:
        tokenization.analyse(tokenizer, texts)

    def shortened() -> None:
        tokenization.analyse(tokenizer, texts, shortener=shortener)

    results = {
        "tokenizer_vs_sentencepiece": compare(analysis, bare),
        "shortening_vs_plain": compare(shortened, analysis),
    }
    hardware = f"{os.cpu_count()} {platform.machine()} cores"
    for key, result in results.items():
        result |= {"what": what, "hardware": hardware}
        print(f"{key}: {result['ratio']:.3f} ({what}; {hardware}; {result['runs']} runs)")
    OUTPUT.parent.mkdir(exist_ok=True)
    part = OUTPUT.with_suffix(".part")
    part.write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
    part.replace(OUTPUT)


if __name__ == "__main__":
    main()
