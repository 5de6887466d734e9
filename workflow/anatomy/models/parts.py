"""Parts of a GPT-2 model by name, for freezing them and for LoRA."""

# The projections LoRA adapts, by their names in a block.
PROJECTIONS = {
    "attention": ["attn.c_attn", "attn.c_proj"],
    "mlps": ["mlp.c_fc", "mlp.c_proj"],
    "all": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
}


def in_parts(name: str, parts: str) -> bool:
    """Whether a parameter belongs to the named parts, e.g. "embeddings + mlp 2" (layers count from 1, as in print).

    The unembedding is tied to the embedding and goes with it. Layer norms belong to no part (as in the released code).
    """
    own = name.removeprefix("transformer.")
    for part in filter(None, parts.split(" + ")):
        if part == "embeddings" and own.startswith(("wte.", "wpe.", "lm_head.")):
            return True
        if part.startswith("mlp ") and own.startswith(f"h.{int(part.removeprefix('mlp ')) - 1}.mlp."):
            return True
    return False
