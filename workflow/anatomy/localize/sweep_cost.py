"""What a sweep over heads costs in FLOPs, in the plain way and with shared work. A test counts both."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from anatomy.models.adapters import adapter_of


@dataclass(frozen=True)
class SweepCost:
    """FLOPs (two per multiplication and addition) of matrix products, for every head of every layer and one prompt.

    With L layers, H heads, width d, T prompt tokens, m scored tokens and so N = T + m - 1 positions that are read:

    - `qkv`, `project`, `mlp`: a layer's products at one position; `layer` is their sum;
    - `attention`: q·k and weights·v of all heads, for one query and one key (masked ones are computed too);
    - `head`: the logits of one position.
    """

    layers: int
    heads: int
    qkv: int
    project: int
    mlp: int
    attention: int
    head: int

    @property
    def layer(self) -> int:
        """All products of a layer at one position, without q·k and weights·v."""
        return self.qkv + self.project + self.mlp

    def forward(self, length: int, tokens: int) -> int:
        """One pass over a prompt and its answer: L (N layer + N² attention) + m head."""
        n = length + tokens - 1
        return self.layers * (n * self.layer + n * n * self.attention) + tokens * self.head

    def loop(self, length: int, tokens: int) -> int:
        """The plain way: a pass without a patch, and one per head."""
        return (1 + self.layers * self.heads) * self.forward(length, tokens)

    def sweep(self, length: int, tokens: int) -> int:
        """The shared way: one pass, and for a head of layer l what follows it.

        That is the output projection and the MLP of layer l at the patched position; L - l - 1 layers and the logits
        at m positions. In the pass the last layer's projection and MLP are left out below the patched position.
        """
        n = length + tokens - 1
        one = self.forward(length, tokens) - (length - 1) * (self.project + self.mlp)
        above = self.layers * (self.layers - 1) // 2  # the sum of L - l - 1 over the layers
        patched = self.layers * (self.project + self.mlp + tokens * self.head)
        return one + self.heads * (patched + above * (tokens * self.layer + tokens * n * self.attention))


def cost_of(model: PreTrainedModel) -> SweepCost:
    """The costs of a model with an adapter, from its matrices.

    Raises:
        ArtifactError: the model's architecture has no adapter.
    """
    adapter = adapter_of(model)
    z, keys = adapter.heads * adapter.head_width, adapter.key_heads * adapter.head_width
    return SweepCost(
        layers=adapter.layers,
        heads=adapter.heads,
        qkv=2 * adapter.width * (z + 2 * keys),
        project=2 * z * adapter.width,
        mlp=2 * sum(value.numel() for value in adapter.mlp_matrices()),
        attention=4 * z,
        head=2 * adapter.unembedding().numel(),
    )
