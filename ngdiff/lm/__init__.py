"""Language models: loading, prompts, adapters, tokens, training, target, reference."""
