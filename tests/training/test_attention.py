import pytest
import torch

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
    with pytest.raises(ValueError, match="sliding window"):
        segment_attention(None, query, key, value, None, sliding_window=2)
