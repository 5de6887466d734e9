"""Top-k logit negativity: the share of the k largest next-token logits that belong to a sentiment."""

from jaxtyping import Bool, Float, Int
from torch import Tensor, zeros
from torch import bool as torch_bool


def token_mask(ids: list[int], vocabulary: int) -> Bool[Tensor, " vocabulary"]:
    """True at the given token ids."""
    mask = zeros(vocabulary, dtype=torch_bool)
    mask[ids] = True
    return mask


def topk_share(
    logits: Float[Tensor, "*row vocabulary"], mask: Bool[Tensor, " vocabulary"], k: int
) -> Float[Tensor, " *row"]:
    """Fraction, per row, of the k largest logits whose token is in `mask` (Lamparth & Reuel, section III-C; k = 10)."""
    top: Int[Tensor, "*row k"] = logits.topk(k, dim=-1).indices
    return mask[top].to(logits.dtype).mean(-1)
