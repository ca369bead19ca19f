"""Layers for training on a CPU against the models' own: loss and gradients of every architecture, dropout against what
torch's promises."""

import contextlib

import pytest
import torch
import transformers
from test_models import CASES, write_case

from common import qlora, training
from common.cpu import attention, blocks, dropout, layers, lora

IDS = torch.arange(3, 3 + 4 * 24).view(4, 24) * 7 % 900
MASK = torch.ones_like(IDS)
MASK[1, 17:] = MASK[3, 9:] = 0  # padded behind the end, as the trainer does
LABELS = torch.where((MASK == 1) & (torch.arange(24) % 24 > 5), IDS, -100)


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    return write_case(request.param, tmp_path_factory.mktemp(request.param))


def adapted(case, p=0.0, precision="float32"):
    """The case's model with an adapter on all linear layers whose outputs are not zero."""
    torch.manual_seed(0)
    model = qlora.new_adapter(case.load(precision), case.settings(dropout=p))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            if "lora_B" in name:
                parameter.data.normal_(0, 0.05)
    return model.train()


def gradients(model, context=None, **inputs):
    """(loss, gradients of all trained parameters as one vector)."""
    model.zero_grad()
    mixed = next(p for p in model.parameters() if not p.requires_grad).dtype == torch.bfloat16
    with context or contextlib.nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        loss = model(**inputs, use_cache=False).loss
        loss.backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return loss.item(), torch.cat([parameter.grad.float().flatten() for parameter in trained])


def replaced(model):
    return [module for module in model.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("packed_weights", [False, True])
def test_loss_and_gradients_are_the_models_own(case, packed_weights, monkeypatch):
    if packed_weights:
        monkeypatch.setattr(qlora, "UNPACK_SHARE", 0)
    model = adapted(case)
    loss, expected = gradients(model, input_ids=IDS, attention_mask=MASK, labels=LABELS)
    masked = gradients(model, layers.fused(model), input_ids=IDS, attention_mask=MASK, labels=LABELS)
    following = torch.nn.functional.pad(LABELS, (0, 1), value=-100)[:, 1:].flatten()
    positions = (following != -100).nonzero()[:, 0]
    learned = following[positions][None]
    with training.logits_at(model, positions):  # and without a mask, as the trainer computes it
        alone = gradients(model, layers.fused(model), input_ids=IDS, labels=learned, shift_labels=learned)
    for found_loss, found in (masked, alone):
        assert found_loss == pytest.approx(loss, rel=1e-5)
        assert (found - expected).norm() < 1e-4 * expected.norm()
    assert replaced(model) == []  # the model's own code is back


def test_in_bfloat16_gradients_are_as_near_to_float32_as_the_models_own(case):
    _, exact = gradients(adapted(case), input_ids=IDS, attention_mask=MASK, labels=LABELS)
    model = adapted(case, precision="bfloat16")
    _, theirs = gradients(model, input_ids=IDS, labels=LABELS)
    _, ours = gradients(model, layers.fused(model), input_ids=IDS, labels=LABELS)
    exact_without_mask = gradients(adapted(case), input_ids=IDS, labels=LABELS)[1]
    assert not torch.equal(ours, theirs)
    assert (ours - exact_without_mask).norm() < 1.3 * (theirs - exact_without_mask).norm() + 1e-3 * exact.norm()


def test_what_is_known_is_replaced(case):
    model = adapted(case)
    adapters = {module for module in model.modules() if isinstance(module, qlora_layer())}
    norms = {module for module in model.modules() if type(module).__name__.endswith("RMSNorm")}
    with layers.fused(model):
        assert adapters | norms <= set(replaced(model))
        config = model.get_base_model().config
        chooses = config.model_type not in ("mpt", "falcon")  # whose code has its own attention
        assert (config._attn_implementation == attention.NAME) == chooses
    assert config._attn_implementation == "sdpa" or not chooses


def qlora_layer():
    from peft.tuners.lora import LoraLayer

    return LoraLayer


def test_layers_that_read_one_input_share_a_product_from_the_first_step_on(case, monkeypatch):
    model, groups = adapted(case), []
    original = lora.together
    with layers.fused(model):
        monkeypatch.setattr(lora, "together", lambda group, x: groups.append(len(group)) or original(group, x))
        for _ in range(2):
            groups.append("step")
            model(input_ids=IDS)
    first, second = groups[1 : len(groups) // 2], groups[len(groups) // 2 + 1 :]
    assert first == second
    assert sum(first) == sum(isinstance(module, qlora_layer()) for module in model.modules())
    if case.variant.shape["model_type"] in ("mistral", "llama", "gemma"):
        assert sorted(set(first)) == [1, 2, 3]  # output and down; gate and up; queries, keys and values


def test_dropout_of_an_adapter_is_on_its_input_alone_and_the_same_backward(monkeypatch):
    """Against autograd over the same bits."""
    torch.manual_seed(0)
    base, inputs = torch.nn.Linear(64, 96).requires_grad_(False), torch.randn(5, 7, 64, requires_grad=True)
    down, up = torch.randn(8, 64, requires_grad=True), torch.randn(96, 8, requires_grad=True)
    masks, drop = [], dropout.drop

    def watched(x, p):
        out, kept = drop(x, p)
        masks.append((out != 0).float())
        return out, kept

    monkeypatch.setattr(dropout, "drop", watched)
    (out,) = lora.LoraLinear.apply(inputs, [base], [0.5], 0.25, down, up)
    seed = torch.randn_like(out)
    ours = torch.autograd.grad(out, (inputs, down, up), seed)
    dropped = inputs * masks[0].view_as(inputs) / 0.75
    expected = base(inputs) + 0.5 * dropped @ down.t() @ up.t()
    assert 0.6 < masks[0].mean() < 0.9
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)
    for one, other in zip(ours, torch.autograd.grad(expected, (inputs, down, up), seed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("masked", [None, "padding", "holes", "added"])
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_attention_is_torchs_with_the_same_probabilities_dropped(masked, p, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, 9, 16, requires_grad=True) for heads in (4, 4 if masked else 2, 2))
    if masked:
        value = torch.randn(2, 4, 9, 16, requires_grad=True)
    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool) if masked else None
    if masked == "padding":
        mask[0, :, :, 7:] = mask[1, :, :, 5:] = False
    elif masked:
        mask[0, :, :, 7:] = mask[1, :, 3:, 2] = False
    keeps, drop = [], dropout.drop

    def watched(x, probability):
        out, kept = drop(torch.ones_like(x), probability)
        keeps.append(out)
        return x * out, kept

    monkeypatch.setattr(dropout, "drop", watched)
    lowest = torch.finfo(torch.float32).min
    used = torch.zeros(mask.shape).masked_fill_(~mask, lowest) if masked == "added" else mask
    out = attention.Attention.apply(query, key, value, used, not masked, 0.25, p)
    seed = torch.randn_like(out)
    ours = torch.autograd.grad(out, (query, key, value), seed)
    shared = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(shared, 1).mT * 0.25
    allowed = mask if masked else torch.ones(9, 9, dtype=torch.bool).tril()
    probabilities = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    if p:
        probabilities = probabilities * keeps[0].view(probabilities.shape) / (1 - p)
    expected = probabilities @ value.repeat_interleave(shared, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours, torch.autograd.grad(expected, (query, key, value), seed), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["BertForSequenceClassification", "DistilBertForSequenceClassification"])
def test_an_encoder_without_dropout_has_its_own_loss_and_gradients(kind):
    torch.manual_seed(0)
    small = {"vocab_size": 1024, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"intermediate_size": 128, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if kind.startswith("Distil"):
        small = {"vocab_size": 1024, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128}
        small |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    config_class = getattr(transformers, kind.replace("ForSequenceClassification", "Config"))
    model = getattr(transformers, kind)(config_class(**small, num_labels=3)).train()
    labels = torch.tensor([0, 2, 1, 1])

    def step(context):
        model.zero_grad()
        with context:
            loss = model(input_ids=IDS, attention_mask=MASK, labels=labels).loss
            loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    (loss, theirs), (found, ours) = step(contextlib.nullcontext()), step(layers.fused(model))
    assert found == pytest.approx(loss, rel=1e-5)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_a_module_under_two_parents_is_replaced_once_and_put_back():
    small = {"vocab_size": 1024, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**small, intermediate_size=128))
    one, other = model.bert.encoder.layer
    other.output.dropout = one.output.dropout
    with layers.fused(model):
        assert one.output.dropout in replaced(model)
    assert replaced(model) == []


def test_norms_that_compute_something_else_keep_their_code():
    class OtherRMSNorm(torch.nn.Module):
        def __init__(self, size, eps=1e-6):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(size), requires_grad=False)

        def forward(self, x):
            return self.weight * x / (1 + x.square().mean(-1, keepdim=True).sqrt())

    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    assert not blocks.is_rms_norm(OtherRMSNorm(8))
    assert not blocks.is_rms_norm(LlamaRMSNorm(8))  # it is trained
    assert [blocks.offset_of(norm) for norm in (LlamaRMSNorm, GemmaRMSNorm)] == [0.0, 1.0]
    assert not blocks.rotates_halves(lambda q, k, cos, sin: (q * cos[:, None], k * cos[:, None]))


# Dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_zeroes_a_share_p_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    x, n = torch.ones(1001, 1333, dtype=dtype), 1001 * 1333
    out = dropout.dropout(x, p)
    spread = (p * (1 - p) / n) ** 0.5
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=5 * spread)  # one byte alone is off by 0.0004
    assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=0.004)
    assert (dropout.dropout(x, 0.999) == 0).double().mean().item() == pytest.approx(255 / 256, abs=0.001)
    assert out.double().mean().item() == pytest.approx(1, abs=5 * spread / (1 - p) + 0.004)  # 0.004: of bfloat16


def test_elements_are_dropped_independently():
    torch.manual_seed(1)
    zero = (dropout.dropout(torch.ones(4096, 4096), 0.25) == 0).double() - 0.25
    for lag in range(1, 17):  # eight neighbours come from one random word
        together = (zero[:, :-lag] * zero[:, lag:]).mean().item()
        assert abs(together) < 5 * 0.1875 / 4096
    rows = zero.mean(1)  # a row is a block: they vary like 4,096 independent draws
    assert rows.std().item() == pytest.approx((0.1875 / 4096) ** 0.5, rel=0.06)


@pytest.mark.parametrize("size", [1, 7, 8, 77, 4096, 4097, 2**17, 2**17 + 9])
def test_gradients_pass_where_values_did(size):
    x = (torch.rand(size) + 0.5).requires_grad_()
    out = dropout.dropout(x, 0.3)
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0)
    kept = out != 0
    assert torch.allclose(x.grad[kept], (out / x)[kept])


def test_the_seed_decides_and_a_restored_state_goes_on():
    x = torch.ones(50, 3)
    torch.manual_seed(3)
    first = dropout.dropout(x, 0.5)
    state = torch.get_rng_state()
    second = dropout.dropout(x, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout.dropout(x, 0.5), second)
    torch.manual_seed(3)
    assert torch.equal(dropout.dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_in_use_or_at_zero():
    model, x = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout1d(0.2)), torch.randn(5, 5)
    assert dropout.dropout(x, 0.0) is x
    assert dropout.forward_of(model.eval()[0])(x) is x
    assert not torch.equal(dropout.forward_of(model.train()[0])(x), x)
