"""The paper "How Multilingual is Multilingual LLM?" made runnable: data, tokenizers, quadrants."""

__version__ = "0.1.0"
