"""The faster dropout against what torch's own promises."""

import pytest
import torch

from common.qlora import DROPOUT_LEVELS, dropout_class, fast_dropout

Dropout = dropout_class()


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_zeroes_a_share_p_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x, n = torch.ones(1001, 333, dtype=dtype), 1001 * 333
    out = Dropout(p)(x)
    spread = (p * (1 - p) / n) ** 0.5
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=5 * spread + 1 / DROPOUT_LEVELS)
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=0.004)
    assert out.double().mean().item() == pytest.approx(1, abs=5 * spread / (1 - p) + 0.004)  # 0.004: of bfloat16


def test_elements_are_dropped_independently():
    torch.manual_seed(1)
    zero = (Dropout(0.25)(torch.ones(4096, 4096)) == 0).double() - 0.25
    for lag in range(1, 9):  # four neighbours come from one random word
        together = (zero[:, :-lag] * zero[:, lag:]).mean().item()
        assert abs(together) < 5 * 0.1875 / 4096


def test_gradients_pass_where_values_did():
    x = torch.randn(7, 11, requires_grad=True)
    out = Dropout(0.3)(x)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
    kept = out != 0
    assert torch.allclose(x.grad[kept], (out / x)[kept])


def test_the_seed_decides_and_a_restored_state_goes_on():
    layer, x = Dropout(0.5), torch.ones(50, 3)
    torch.manual_seed(3)
    first = layer(x)
    state = torch.get_rng_state()
    second = layer(x)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), second)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_use_or_at_zero():
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_only_torchs_own_is_replaced():
    model = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Dropout1d(0.2), torch.nn.Linear(2, 2))
    assert [type(module) for module in fast_dropout(model)] == [Dropout, torch.nn.Dropout1d, torch.nn.Linear]
    assert model[0].p == 0.2
