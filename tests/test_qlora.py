"""4-bit loading: what is quantised and how, that gradients survive an evaluation, that nothing unsafe is read."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from common import checkpoints, machine, qlora
from common.console import Failed, InputError

SETTINGS = tiny.settings(lora_r=8, targets=["q_proj", "v_proj", "down_proj"])


def check(model):
    qlora.assert_quantised(model, [model.get_output_embeddings()])


def adapted(model):
    torch.manual_seed(1)
    tuned = qlora.new_adapter(model, SETTINGS)
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
    assert len(qlora.linear4bit(model)) == 2 * 7
    assert {layer.weight.quant_state.quant_type for layer in qlora.linear4bit(model)} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in qlora.linear4bit(model))
    linear = sum(layer.in_features * layer.out_features for layer in qlora.linear4bit(model))
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
    assert len(qlora.linear4bit(model)) == 2 * 4
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
    for share in (0, qlora.UNPACK_SHARE):
        monkeypatch.setattr(qlora, "UNPACK_SHARE", share)
        model = load(dtype)
        assert model.unpacked == adapted(model).unpacked == bool(share)  # which the record says
        model = load(dtype)
        assert len(qlora.linear4bit(model)) == (0 if share else 2 * 7)
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
    monkeypatch.setattr(machine, "free", lambda: 4 * 100_000)
    assert len(qlora.linear4bit(load())) == 2 * 7


@pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported() or torch.cuda.is_available(), reason="repacking needs AVX512-BF16"
)
def test_without_the_guard_an_evaluation_ruins_gradients(load, packed):
    """Shows that the guard is still needed: if this fails, bitsandbytes was mended and keep_gradients can go."""
    model = load("bfloat16")
    for layer in qlora.linear4bit(model):
        layer.support_avx512bf16_for_cpu = True
    tuned = adapted(model)
    before = gradients(tuned)
    evaluate(tuned)
    with pytest.warns(UserWarning):
        after = gradients(tuned)
    assert any(name not in after or not torch.equal(before[name], after[name]) for name in before)


def test_reloaded_base_holds_the_very_weights_that_were_trained_on(load, packed):
    first, second = load(), load()
    for one, other in zip(qlora.linear4bit(first), qlora.linear4bit(second), strict=True):
        assert torch.equal(one.weight.data, other.weight.data)
        assert one.weight.quant_state.quant_type == other.weight.quant_state.quant_type


def test_named_targets_all_match_and_get_gradients(load):
    found = gradients(adapted(load()))
    for target in SETTINGS.targets:
        assert sum(target in name for name in found) == 2 * 2
        assert all(grad.abs().sum() > 0 for name, grad in found.items() if target in name)


def test_a_target_that_the_model_does_not_have_is_one_clear_line(load):
    with pytest.raises(InputError, match="query_key_value"):
        qlora.new_adapter(load(), SETTINGS.replaced({"targets": ["q_proj", "query_key_value"]}))


def test_an_adapter_that_is_not_safetensors_is_refused(load, tmp_path):
    tuned = adapted(load())
    tuned.save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    torch.save({"x": torch.zeros(1)}, tmp_path / "adapter_model.bin")
    shutil.move(weights, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="safetensors"):
        qlora.with_adapter(load(), tmp_path)


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    """A trained adapter's folder; the tests damage copies of it."""
    base = qlora.base(checkpoints.find(str(tiny_folder)), tiny.execution(tiny_folder))
    folder = tmp_path_factory.mktemp("adapter")
    adapted(base).save_pretrained(folder)
    return folder


def changed(tensors, drop=None, **more):
    return {name: tensor for name, tensor in tensors.items() if name != drop} | more


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
DAMAGES = {
    "a tensor is missing": lambda t: changed(t, FIRST),
    "a layer is missing": lambda t: {name: each for name, each in t.items() if ".layers.1." not in name},
    "a tensor has another shape": lambda t: changed(t, **{FIRST: torch.zeros(4, 128)}),
    "a tensor is of another layer": lambda t: changed(t, **{FIRST.replace("layers.0", "layers.7"): t[FIRST].clone()}),
    "a tensor is of another target": lambda t: changed(t, **{FIRST.replace("down", "up"): t[FIRST].clone()}),
    "there is no tensor": lambda t: {},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_adapter_that_is_not_whole_is_one_clear_line(load, adapter, tmp_path, damage):
    shutil.copytree(adapter, tmp_path / "adapter")
    file = tmp_path / "adapter" / qlora.WEIGHTS
    save_file(DAMAGES[damage](load_file(file)), file)
    with pytest.raises(InputError, match=r"the tensor base_model\S+ (is missing|has the shape|has no place)"):
        qlora.with_adapter(load(), tmp_path / "adapter")


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"not safetensors at all, but long enough to be read"])
def test_adapter_weights_that_are_torn_are_one_clear_line(load, adapter, tmp_path, content):
    shutil.copytree(adapter, tmp_path / "adapter")
    file = tmp_path / "adapter" / qlora.WEIGHTS
    whole = file.read_bytes()
    for torn in (content, whole[:-10], whole[: len(whole) // 2], whole + b"more"):
        file.write_bytes(torn)
        with pytest.raises(InputError, match="cannot use the adapter") as error:
            qlora.with_adapter(load(), tmp_path / "adapter")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "field",
    [
        {"r": "eight"},
        {"r": 4},
        {"r": -1},
        {"r": None},
        {"r": 10**12},
        {"lora_alpha": "much"},
        {"target_modules": 5},
        {"target_modules": ["nowhere"]},
        {"target_modules": ["q_proj", "v_proj"]},
        {"peft_type": "IA3"},
        {"peft_type": "unheard of"},
        {"task_type": 7},
        {"megatron_config": {"a": 1}, "megatron_core": "os"},
    ],
    ids=str,
)
def test_an_adapters_config_of_wrong_kinds_is_one_clear_line(load, adapter, tmp_path, field):
    shutil.copytree(adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / qlora.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | field))
    with pytest.raises(InputError, match="cannot use the adapter") as error:
        qlora.with_adapter(load(), tmp_path / "adapter")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", "[" * 100_000, "\x00\xff"])
def test_an_adapters_config_that_is_none_is_one_clear_line(load, adapter, tmp_path, text):
    shutil.copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter" / qlora.CONFIG).write_text(text)
    with pytest.raises(InputError, match="cannot use the adapter"):
        qlora.with_adapter(load(), tmp_path / "adapter")


def test_a_rank_that_memory_does_not_hold_ends_the_run_as_out_of_memory(load):
    with pytest.raises(Failed, match="lower --lora_r") as failure:
        qlora.new_adapter(load(), SETTINGS.replaced({"lora_r": 10**12}))
    assert failure.value.status == "OOM"


def damaged_model(tiny_folder, folder, damage):
    shutil.copytree(tiny_folder, folder)
    file, config = folder / "model.safetensors", folder / "config.json"
    if "config" in damage:
        config.write_text(json.dumps(json.loads(config.read_text()) | damage["config"]))
    elif "tensors" in damage:
        save_file(damage["tensors"](load_file(file)), file, {"format": "pt"})
    else:
        file.write_bytes(damage["bytes"](file.read_bytes()))
    return checkpoints.find(str(folder))


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    "damage",
    [
        {"bytes": lambda whole: b""},
        {"bytes": lambda whole: whole[: len(whole) // 2]},
        {"bytes": lambda whole: whole + b"more"},
        {"tensors": lambda t: {}},
        {"tensors": lambda t: changed(t, NORM)},
        {"tensors": lambda t: changed(t, "lm_head.weight")},
        {"tensors": lambda t: changed(t, **{NORM: torch.zeros(32)})},
        {"config": {"vocab_size": 2048}},
        {"config": {"hidden_size": "large"}},
        {"config": {"num_hidden_layers": 3}},
        {"config": {"num_hidden_layers": None}},
        {"config": {"num_attention_heads": 0}},
        {"config": {"intermediate_size": 256}},
        {"config": {"model_type": "unheard of"}},
        {"config": {"model_type": 5}},
    ],
)
def test_model_files_that_are_damaged_are_one_clear_line(tiny_folder, tmp_path, damage):
    with pytest.raises(InputError, match="cannot load"):
        qlora.base(damaged_model(tiny_folder, tmp_path / "model", damage), tiny.execution(tmp_path))


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tiny_folder, tmp_path):
    checkpoint = damaged_model(tiny_folder, tmp_path / "model", {"config": {"vocab_size": 512}})
    with pytest.raises(InputError, match="not of one checkpoint"):
        qlora.tokenizer(checkpoint)


def test_a_model_folder_without_safetensors_is_refused(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot load"):
        qlora.base(checkpoints.find(str(tmp_path / "model")), tiny.execution(tmp_path))


def test_code_in_a_model_folder_is_never_run(tiny_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_x.Evil", "AutoConfig": "modeling_x.EvilConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    model = qlora.base(checkpoints.find(str(folder)), tiny.execution(tmp_path))
    assert type(model).__name__ == "MistralForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_tokenizer_pads_left_and_has_a_pad_token(tokenizer):
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id is not None
