"""Text of all languages, and the tokenizer trained on it."""

from mlq_utils import corpora, tokenization


def test_texts_of_a_corpus():
    texts = corpora.texts("cldr", "test", 5)
    assert {len(t) for t in texts.values()} == {5} and "en" in texts and "km" in texts


def test_the_tokenizer_is_english_centric():
    tokenizer = corpora.english_centric_tokenizer(1000, sentences=3000)
    texts = corpora.texts("cldr", "test", 60)
    words = tokenization.analyse(tokenizer, texts).set_index("language")["tokens_per_char"]
    assert words["en"] == words.min()
    assert words["km"] > 2  # Khmer is outside the training text and falls to bytes.
