"""Where an architecture's sites are, and what a sweep over them needs: GPT-2, Llama and Qwen2 have an adapter."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from anatomy.models import gpt2
from anatomy.provenance.digest import ArtifactError
from anatomy.sites import Part

# The cosines and sines of rotary positions, each [position, head width]; none where positions are embedded.
Rotation = tuple[Tensor, Tensor] | None


@runtime_checkable  # for the tests, which check types at run time
class Adapter(Protocol):
    """A causal transformer whose blocks add `project(attention)` and then `mlp` to the residual stream.

    All computation is done by the model's own modules, without dropout. Only the attention itself, softmax(q·k)·v, is
    left to the caller. The input z of the output projection holds the outputs of all (query) heads, one after the
    other.
    """

    layers: int
    heads: int  # of the queries
    key_heads: int  # of the keys and values; several heads share one where there are fewer
    head_width: int
    width: int
    positions: int  # the longest input in tokens

    def module(self, layer: int, part: Part) -> nn.Module:
        """The module whose output (for heads: whose input) is the activation of the part.

        A head's activation is its slice of the input of the output projection, which holds them in order.
        """
        ...

    def embed(self, ids: Int[Tensor, "*row position"]) -> Float[Tensor, "*row position width"]:
        """What enters the first block, for tokens from position 0 on."""
        ...

    def rotation(self, positions: Int[Tensor, " position"]) -> Rotation:
        """What `query_key_value` needs to know of the positions."""
        ...

    def query_key_value(
        self, layer: int, resid: Float[Tensor, "*row position width"], rotation: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [*row, position, head, width], keys and values [*row, position, key head, width] of a block."""
        ...

    def scaling(self, layer: int) -> float:
        """What q·k is multiplied by."""
        ...

    def project(self, layer: int, z: Float[Tensor, "*row z"]) -> Float[Tensor, "*row width"]:
        """The attention module's output: the output projection of all heads' outputs."""
        ...

    def mlp(self, layer: int, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """The MLP's output, from the residual stream before the norm."""
        ...

    def mlp_matrices(self) -> list[Tensor]:
        """The matrices of one block's MLP, for what it costs."""
        ...

    def norm(self, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """The final norm."""
        ...

    def unembedding(self) -> Float[Tensor, "vocabulary width"]:
        """The matrix that makes logits of the final norm's output."""
        ...


class GPT2:
    """The GPT-2 family."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.model = model
        self.layers, self.heads, self.key_heads = config.n_layer, config.n_head, config.n_head
        self.width, self.head_width, self.positions = config.n_embd, gpt2.head_width(model), config.n_positions

    def module(self, layer: int, part: Part) -> nn.Module:
        """See Adapter."""
        return gpt2.module(self.model, layer, part)

    def embed(self, ids: Int[Tensor, "*row position"]) -> Float[Tensor, "*row position width"]:
        """See Adapter."""
        body = self.model.transformer
        return body.wte(ids) + body.wpe(torch.arange(ids.shape[-1], device=ids.device))

    def rotation(self, positions: Int[Tensor, " position"]) -> Rotation:
        """See Adapter."""
        return None

    def query_key_value(
        self, layer: int, resid: Float[Tensor, "*row position width"], rotation: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See Adapter."""
        block = self._block(layer)
        q, k, v = block.attn.c_attn(block.ln_1(resid)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        return q, k, v

    def scaling(self, layer: int) -> float:
        """See Adapter."""
        return self._block(layer).attn.scaling

    def project(self, layer: int, z: Float[Tensor, "*row z"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        return self._block(layer).attn.c_proj(z.contiguous())  # transformers' Conv1D views it

    def mlp(self, layer: int, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        block = self._block(layer)
        return block.mlp(block.ln_2(resid))

    def mlp_matrices(self) -> list[Tensor]:
        """See Adapter."""
        return [value for value in self._block(0).mlp.parameters() if value.ndim == 2]

    def norm(self, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        return self.model.transformer.ln_f(resid)

    def unembedding(self) -> Float[Tensor, "vocabulary width"]:
        """See Adapter."""
        return self.model.lm_head.weight

    def _block(self, layer: int) -> Any:
        return gpt2.blocks(self.model)[layer]


class Llama:
    """The Llama family: RMS norms, rotary positions, keys and values that several heads share. Qwen2 is built alike."""

    def __init__(self, model: Any) -> None:
        config = model.config
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise ArtifactError("the model attends to a sliding window; expected attention to all earlier positions")
        self.model = model
        self.layers, self.width, self.positions = (
            config.num_hidden_layers,
            config.hidden_size,
            config.max_position_embeddings,
        )
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        if self.heads % self.key_heads:
            raise ArtifactError(
                f"the model has {self.heads} heads and {self.key_heads} of keys and values; "
                "expected as many heads for each of these"
            )
        self.head_width = self._block(0).self_attn.head_dim

    def module(self, layer: int, part: Part) -> nn.Module:
        """See Adapter."""
        if part == "embed":
            return self.model.model.embed_tokens
        block = self._block(layer)
        names = {"attn": "self_attn", "mlp": "mlp", "head": "self_attn.o_proj", "resid": ""}
        return block.get_submodule(names[part])

    def embed(self, ids: Int[Tensor, "*row position"]) -> Float[Tensor, "*row position width"]:
        """See Adapter."""
        return self.model.model.embed_tokens(ids)

    def rotation(self, positions: Int[Tensor, " position"]) -> Rotation:
        """See Adapter."""
        like = self.unembedding()  # the type and the device
        cos, sin = self.model.model.rotary_emb(like, position_ids=positions[None])
        return cos[0], sin[0]

    def query_key_value(
        self, layer: int, resid: Float[Tensor, "*row position width"], rotation: Rotation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See Adapter."""
        block = self._block(layer)
        x, attention = block.input_layernorm(resid), block.self_attn
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_width))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        assert rotation is not None
        q, k = apply_rotary_pos_emb(q, k, *rotation, unsqueeze_dim=1)  # [position, 1, width]: alike for all heads
        return q, k, v

    def scaling(self, layer: int) -> float:
        """See Adapter."""
        return self._block(layer).self_attn.scaling

    def project(self, layer: int, z: Float[Tensor, "*row z"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        return self._block(layer).self_attn.o_proj(z)

    def mlp(self, layer: int, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        block = self._block(layer)
        return block.mlp(block.post_attention_layernorm(resid))

    def mlp_matrices(self) -> list[Tensor]:
        """See Adapter."""
        return [value for value in self._block(0).mlp.parameters() if value.ndim == 2]

    def norm(self, resid: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
        """See Adapter."""
        return self.model.model.norm(resid)

    def unembedding(self) -> Float[Tensor, "vocabulary width"]:
        """See Adapter."""
        return self.model.lm_head.weight

    def _block(self, layer: int) -> Any:
        return self.model.model.layers[layer]


ADAPTERS: dict[str, type[GPT2] | type[Llama]] = {"gpt2": GPT2, "llama": Llama, "qwen2": Llama}


def adapter_of(model: PreTrainedModel) -> Adapter:
    """The adapter of a model's architecture.

    Raises:
        ArtifactError: the architecture has none.
    """
    kind = model.config.model_type
    if kind not in ADAPTERS:
        raise ArtifactError(
            f"a model of the architecture {kind!r} has no adapter here; those that have one: {', '.join(ADAPTERS)}"
        )
    return ADAPTERS[kind](model)
