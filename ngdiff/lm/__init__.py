"""A language model and how it is asked: loading, adapters, tokens, training, target, reference."""
