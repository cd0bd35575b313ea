import pytest
import torch

from cascade_rl.training import attention
from cascade_rl.training.attention import segment_attention


def qkv(length, heads=4, kv_heads=2, dim=8):
    generator = torch.Generator().manual_seed(0)
    make = lambda h: torch.randn(1, h, length, dim, generator=generator)  # noqa: E731
    return make(heads), make(kv_heads), make(kv_heads)


def test_segments_do_not_see_each_other():
    query, key, value = qkv(9)
    borders = torch.tensor([0, 4, 9], dtype=torch.int32)
    packed, _ = segment_attention(None, query, key, value, None, scaling=0.3, cu_seq_lens_q=borders)
    for start, end in ((0, 4), (4, 9)):
        part = (t[:, :, start:end] for t in (query, key, value))
        alone, _ = segment_attention(None, *part, None, scaling=0.3)
        assert torch.allclose(packed[:, start:end], alone, atol=1e-6)


def test_what_it_cannot_do_exactly_is_refused():
    query, key, value = qkv(4)
    with pytest.raises(ValueError, match="mask"):
        segment_attention(None, query, key, value, torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="window"):
        segment_attention(None, query, key, value, None, sliding_window=2)


def test_a_mask_and_the_prefixs_own_queries_give_the_same(monkeypatch):
    """Whichever is cheaper: both are what a whole sequence of prefix and segment would have seen."""
    borders, prefixes = torch.tensor([0, 6, 9, 14], dtype=torch.int32), ((0, 0), (0, 4), (0, 4))
    given = [tensor.requires_grad_() for tensor in qkv(14)]
    found = []
    for cells in (attention.MASK_CELLS, 0):
        monkeypatch.setattr(attention, "MASK_CELLS", cells)
        out, _ = segment_attention(None, *given, None, scaling=0.3, cu_seq_lens_q=borders, prefixes=prefixes)
        out.square().sum().backward()
        found.append((out, [tensor.grad.clone() for tensor in given]))
        for tensor in given:
            tensor.grad = None
    (masked, its_gradients), (joined, others) = found
    assert torch.allclose(masked, joined, atol=1e-6)
    for one, other in zip(its_gradients, others, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    whole = (torch.cat([tensor[:, :, :4], tensor[:, :, 9:]], dim=2) for tensor in given)
    alone, _ = segment_attention(None, *whole, None, scaling=0.3)
    assert torch.allclose(masked[:, 9:], alone[:, 4:], atol=1e-6)
