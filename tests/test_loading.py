"""4-bit loading: what is quantised and how, that gradients survive an evaluation, that nothing unsafe is read."""

import shutil

import pytest
import torch

from common import checkpoints, loading
from common.console import InputError

SETTINGS = {"lora_r": 8, "lora_alpha": 16, "dropout": 0.0, "targets": ["q_proj", "v_proj", "down_proj"]}


def check(model):
    loading.assert_quantised(model, [model.get_output_embeddings()])


def adapted(model):
    torch.manual_seed(1)
    tuned = loading.new_adapter(model, SETTINGS)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:  # starts at zero, which would hide the gradient of lora_A
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned


def gradients(tuned):
    tuned.train()
    ids = torch.arange(1, 33).view(2, 16)
    tuned.zero_grad()
    tuned(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in tuned.named_parameters() if p.requires_grad and p.grad is not None}


def evaluate(tuned):
    tuned.eval()
    with torch.no_grad():
        tuned(input_ids=torch.arange(1, 33).view(2, 16))


def test_every_linear_layer_but_the_head_is_nf4_with_double_quantization(load, packed):
    model = load()
    assert len(loading.linear4bit(model)) == 2 * 7
    assert {layer.weight.quant_state.quant_type for layer in loading.linear4bit(model)} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in loading.linear4bit(model))
    linear = sum(layer.in_features * layer.out_features for layer in loading.linear4bit(model))
    rest = sum(p.numel() for name, p in model.named_parameters() if "proj" not in name)
    assert model.get_memory_footprint() == pytest.approx(linear / 2 + 4 * rest, rel=0.05)


def test_another_quantisation_is_noticed(tiny_folder):
    import transformers

    def other(**keywords):
        config = transformers.BitsAndBytesConfig(load_in_4bit=True, **keywords)
        return transformers.AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=config)

    with pytest.raises(RuntimeError, match="NF4"):
        check(other(bnb_4bit_use_double_quant=True))  # the library's default: fp4
    with pytest.raises(RuntimeError, match="NF4"):
        check(other(bnb_4bit_quant_type="nf4"))


def test_an_architecture_with_linear_layers_of_its_own_is_quantised_too(tmp_path, load, packed):
    import tiny
    import transformers

    config = transformers.FalconConfig(
        vocab_size=1024, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, bos_token_id=1, eos_token_id=2
    )
    folder = tiny.write(tmp_path, config)
    unguarded = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        ),
    )
    with pytest.raises(RuntimeError, match="not quantised"):
        check(unguarded)
    model = load(folder=folder)
    assert len(loading.linear4bit(model)) == 2 * 4
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(1, 17)[None]
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(model(ids).logits, plain(ids).logits, dim=-1).min() > 0.8
    assert transformers.models.falcon.modeling_falcon.FalconLinear is not torch.nn.Linear  # put back


def test_gradients_are_equal_before_and_after_an_evaluation(load, packed):
    tuned = adapted(load("bfloat16"))
    before = gradients(tuned)
    evaluate(tuned)
    after = gradients(tuned)
    assert len(before) == 2 * 3 * 2
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_kept_dequantised_give_the_very_numbers_of_the_packed_ones(load, monkeypatch, dtype):
    ids, found = torch.arange(1, 33).view(2, 16), []
    for share in (0, loading.SHARE):
        monkeypatch.setattr(loading, "SHARE", share)
        model = load(dtype)
        assert len(loading.linear4bit(model)) == (0 if share else 2 * 7)
        with torch.no_grad():
            logits = model(ids).logits
        found.append((logits, gradients(adapted(model))))
    (logits, packed), (same, kept) = found
    assert packed.keys() == kept.keys()
    close = 0 if dtype == "float32" else 3e-2  # a product of the same numbers in another layout rounds differently
    assert (logits - same).norm() <= close * logits.norm()
    off = {name: float((packed[name] - kept[name]).norm() / packed[name].norm().clamp(min=1e-9)) for name in packed}
    assert max(off.values()) <= close, off


def test_weights_stay_packed_where_memory_is_short(load, monkeypatch):
    monkeypatch.setattr(loading.memory, "free", lambda: 4 * 100_000)
    assert len(loading.linear4bit(load())) == 2 * 7


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(), reason="repacking needs AVX512-BF16"
)
def test_without_the_guard_an_evaluation_ruins_gradients(load, packed):
    """Shows that the guard is still needed: if this fails, bitsandbytes was mended and keep_gradients can go."""
    model = load("bfloat16")
    for layer in loading.linear4bit(model):
        layer.support_avx512bf16_for_cpu = True
    tuned = adapted(model)
    before = gradients(tuned)
    evaluate(tuned)
    with pytest.warns(UserWarning):
        after = gradients(tuned)
    assert any(name not in after or not torch.equal(before[name], after[name]) for name in before)


def test_reloaded_base_holds_the_very_weights_that_were_trained_on(load, packed):
    first, second = load(), load()
    for one, other in zip(loading.linear4bit(first), loading.linear4bit(second), strict=True):
        assert torch.equal(one.weight.data, other.weight.data)
        assert one.weight.quant_state.quant_type == other.weight.quant_state.quant_type


def test_named_targets_all_match_and_get_gradients(load):
    found = gradients(adapted(load()))
    for target in SETTINGS["targets"]:
        assert sum(target in name for name in found) == 2 * 2
        assert all(grad.abs().sum() > 0 for name, grad in found.items() if target in name)


def test_a_target_that_the_model_does_not_have_is_one_clear_line(load):
    with pytest.raises(InputError, match="query_key_value"):
        loading.new_adapter(load(), {**SETTINGS, "targets": ["q_proj", "query_key_value"]})


def test_an_adapter_that_is_not_safetensors_is_refused(load, tmp_path):
    tuned = adapted(load())
    tuned.save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    torch.save({"x": torch.zeros(1)}, tmp_path / "adapter_model.bin")
    shutil.move(weights, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="safetensors"):
        loading.with_adapter(load(), tmp_path)


def test_a_model_folder_without_safetensors_is_refused(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load"):
        loading.base(checkpoints.find(str(tmp_path / "model")), "float32")


def test_code_in_a_model_folder_is_never_run(tiny_folder, tmp_path):
    import json

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_x.Evil", "AutoConfig": "modeling_x.EvilConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    model = loading.base(checkpoints.find(str(folder)), "float32")
    assert type(model).__name__ == "MistralForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_tokenizer_pads_left_and_has_a_pad_token(tokenizer):
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id is not None
