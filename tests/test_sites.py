"""Places in a transformer, named as in the papers."""

import pytest

from anatomy.sites import Site, heads, modules


def test_layers_count_from_one_in_print() -> None:
    names = [str(site) for site in (Site(0, "mlp"), Site(1, "head", 0), Site(2, "attn"))]
    assert names == ["layer 1 mlp", "layer 2 att0", "layer 3 attn"]


@pytest.mark.parametrize(("part", "head"), [("head", None), ("mlp", 0)])
def test_a_head_number_goes_with_heads_alone(part: str, head: int | None) -> None:
    with pytest.raises(ValueError, match="a head number goes with part 'head' and with no other"):
        Site(0, part, head)


def test_modules_and_heads_come_bottom_up() -> None:
    assert modules(2) == [Site(0, "attn"), Site(0, "mlp"), Site(1, "attn"), Site(1, "mlp")]
    assert heads(2, 2) == [Site(0, "head", 0), Site(0, "head", 1), Site(1, "head", 0), Site(1, "head", 1)]
    assert sorted(heads(2, 12), key=None) == heads(2, 12)  # the tenth head after the second
