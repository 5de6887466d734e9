"""The files of a model's directory, for whoever must name them without loading torch."""

# Hugging Face's layout with the tokenizer inside; whoever has these files has the model.
MODEL_FILES = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
