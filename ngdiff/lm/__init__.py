"""Language models and their prompts: loading, adapters, tokens, training, target, reference."""
