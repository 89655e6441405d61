"""Measure six tokenizers on FLORES-200 and write the package's record.

    MLQ_DATA=folder python -m benchmarks.record_tokenizers

The data folder must hold FLORES-200 and the tokenizers (see CONTRIBUTING).
"""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from mlq_utils import corpora, languages, tokenization
from mlq_utils.data import data_folder, sha256
from mlq_utils.tokenization import record

TOKENIZERS = {
    "llama": "tokenizer.model",
    "gpt-neox-20b": "tokenizer.json",
    "mistral-v1": "tokenizer.model",
    "llama-3": "tokenizer.model",
    "llama-4": "tokenizer.model",
    "grok-1": "tokenizer.model",
}
"""The measured tokenizers and their files: `llama` is LLaMA-1's and LLaMA-2's, `gpt-neox-20b` also
MPT's."""
SPLIT = "devtest"
PACKAGES = ("sentencepiece", "tokenizers", "tiktoken", "numpy", "pandas")


def measure() -> dict[str, pd.DataFrame]:
    """Return the measurements by name, as `tokenization.recorded` returns each."""
    texts = corpora.texts("flores200", SPLIT)
    frames = {name: tokenization.analyse(tokenization.load(name), texts) for name in TOKENIZERS}
    fertility = pd.concat(frames, names=["tokenizer"]).reset_index("tokenizer")
    return {
        "fertility": fertility.reset_index(drop=True),
        "shortening": tokenization.gains(tokenization.load("llama"), texts),
    }


def main() -> None:
    """Measure and write the record, with the provenance of what was measured."""
    files = {}
    for name, frame in measure().items():
        path = record.FOLDER / f"{name}.csv"
        frame.to_csv(path, index=False, float_format="%.8g", lineterminator="\n")
        files[path.name] = sha256(path)
    corpus = [corpora.load("flores200", c, SPLIT).attrs for c in languages.codes("flores200")]
    digests = "".join(list(attrs["files"].values())[-1] for attrs in corpus)
    provenance = {
        "date": datetime.now(UTC).date().isoformat(),
        "corpus": {
            "name": "flores200",
            "split": SPLIT,
            "languages": len(corpus),
            "sha256_of_sha256s": hashlib.sha256(digests.encode()).hexdigest(),
        },
        "tokenizers": {
            name: {"file": file, "sha256": sha256(data_folder() / "tokenizers" / name / file)}
            for name, file in TOKENIZERS.items()
        },
        "versions": {p: version(p) for p in PACKAGES},
        "files": files,
    }
    text = json.dumps(provenance, indent=2) + "\n"
    (record.FOLDER / "provenance.json").write_text(text, encoding="utf8")


if __name__ == "__main__":
    main()
