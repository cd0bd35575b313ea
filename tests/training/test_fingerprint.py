import torch

from cascade_rl.training.fingerprint import Fingerprint


def name_of(weights):
    fingerprint = Fingerprint()
    passed = list(fingerprint.of(weights))
    assert passed == list(weights)
    return fingerprint.value


def test_equal_weights_have_one_name_and_others_another():
    a, b = ("a", torch.tensor([1.0, 2.0, 3.0])), ("b", torch.tensor([4.0]))
    assert name_of([a, b]) == name_of([("a", a[1].clone()), b])
    others = [
        name_of([a]),
        name_of([b, a]),
        name_of([("c", a[1]), b]),
        name_of([("a", torch.tensor([1.0, 2.0, 3.0000002])), b]),
        name_of([("a", torch.tensor([0.0, 3.0, 3.0])), b]),  # the same sum
        name_of([]),
    ]
    assert len({name_of([a, b]), *others}) == 1 + len(others)


def test_half_precision_is_told_apart_bit_by_bit():
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    assert name_of([("a", half)]) != name_of([("a", half + 0.0078125)])
