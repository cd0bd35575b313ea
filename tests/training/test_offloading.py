import torch

from cascade_rl.training.offloading import activations_on_cpu


def test_what_has_a_number_for_each_token_goes_and_weights_stay():
    hooks = activations_on_cpu(100)
    activation, weight = torch.randn(1, 100, 64), torch.randn(64, 128)
    packed = hooks.pack_hook(activation)
    assert packed is not activation
    assert torch.equal(hooks.unpack_hook(packed), activation)
    for kept in (weight, torch.zeros(100, 64, dtype=torch.int64), torch.randn(100)):
        assert hooks.pack_hook(kept) is kept
        assert hooks.unpack_hook(kept) is kept


def test_the_gradient_is_the_same():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64))
    x = torch.randn(100, 64)
    model(x).square().sum().backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with activations_on_cpu(100):
        model(x).square().sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))
