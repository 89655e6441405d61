"""The paper "How Multilingual is Multilingual LLM?" made runnable: data, tokenizers, quadrants."""

import warnings

# pooch and huggingface_hub look for notebook widgets on import; the book uses none, on purpose.
warnings.filterwarnings("ignore", message="IProgress not found")
# peft asks transformers by its former name; no user can do anything about it.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

__version__ = "0.1.0"
