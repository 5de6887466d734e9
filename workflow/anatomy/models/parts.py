"""Parts of a model by name: for LoRA, and of GPT-2 for freezing them."""

# The projections LoRA adapts, by their names in a block of GPT-2 and of a model of the Llama kind.
PROJECTIONS = {
    "gpt2": {"attention": ["attn.c_attn", "attn.c_proj"], "mlps": ["mlp.c_fc", "mlp.c_proj"]},
    "llama": {
        "attention": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
        "mlps": ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    },
}
for _own in PROJECTIONS.values():
    _own["all"] = _own["attention"] + _own["mlps"]


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
