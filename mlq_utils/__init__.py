"""The paper "How Multilingual is Multilingual LLM?" made runnable: data, tokenizers, quadrants."""

import warnings

# pooch and huggingface_hub look for notebook widgets on import; the book uses none, on purpose.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
