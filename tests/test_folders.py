"""What holds across the model folders: one set of files, one experiment, declared differences; a small core."""

import ast
import csv
import difflib
import re

import pytest
from conftest import ROOT

from common import data, files, metrics
from common.runs import folders, identity
from common.settings import Settings

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/model.py"))
ENCODERS = ["distilbert", "minilm"]
WRITERS = [name for name in FOLDERS if name not in ENCODERS]
TASKS = (
    "classification",
    "summarization",
    "classification_inference",
    "summarization_inference",
    "baseline_inference",
)
INSTRUCTIONS = {"MODEL_instructions.py", "MODEL_instructions_inference.py", "decoding_sweep.sh"}
PROMPTED = {"MODEL_sentiment.py", "sentiment_executions.sh"}
ENCODER = {"MODEL_sentiment.py", "MODEL_sentiment_loop.py", "MODEL_features.py"}
MORE_FILES = {
    "zephyr": {"run_lora_neftune.sh", "sample_ablate_neftune.sh"},
    "llama2": INSTRUCTIONS,
    "phi2": INSTRUCTIONS,
    "mistral": INSTRUCTIONS | {"MODEL_sentiment.py"},
    "gemma": PROMPTED,
    "smollm2": INSTRUCTIONS | PROMPTED | {"evidence.sh"},
    "distilbert": ENCODER,
    "minilm": ENCODER | {"evidence.sh"},
}


def read(folder, task):
    return (ROOT / folder / f"{folder}_{task}.py").read_text(encoding="utf-8")


def scripts(folder):
    """Paths of a folder's scripts."""
    return sorted((ROOT / folder).glob(f"{folder}_*.py"))


def function(folder, task, name="main"):
    """A function of a script, without comments, as text."""
    tree = ast.parse(read(folder, task))
    return ast.unparse(next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name))


# The files


def test_there_are_ten_folders():
    ten = ["distilbert", "falcon", "gemma", "llama2", "minilm", "mistral", "mpt", "phi2", "smollm2", "zephyr"]
    assert ten == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_has_the_same_set_of_files(folder):
    def files(name):
        paths = (path.name for path in (ROOT / name).iterdir() if path.is_file())
        return {re.sub(f"^{name}_", "MODEL_", path) for path in paths}

    same = files("falcon")
    assert len(same) == 12
    assert files(folder) == same | MORE_FILES.get(folder, set())


def test_a_script_fits_a_page():
    lengths = {}
    for folder in FOLDERS:
        for path in scripts(folder):
            limit = 140 if path.stem.endswith("_loop") else 80
            lengths[path.name] = len(path.read_text(encoding="utf-8").splitlines()) - limit
    assert len(lengths) == 5 * 10 + 4 * 2 + 9
    assert {name: over for name, over in lengths.items() if over > 0} == {}


# One experiment, ten models


@pytest.mark.parametrize("task", TASKS)
def test_the_mains_of_a_task_are_equal_in_all_folders_of_models_that_write(task):
    names = ["main", "answers"] if task.endswith("_inference") and "baseline" not in task else ["main"]
    for name in names:
        assert {function(folder, task, name) for folder in WRITERS} == {function("mistral", task, name)}


@pytest.mark.parametrize("task", ["instructions", "instructions_inference"])
def test_the_mains_of_the_alpaca_study_are_equal(task):
    assert len({function(folder, task) for folder in ("llama2", "mistral", "phi2", "smollm2")}) == 1


def test_the_mains_of_the_imdb_study_differ_in_what_is_declared():
    """Gemma and SmolLM2 score the untrained model, too (prompted=True); Mistral's study has no such row."""
    assert function("gemma", "sentiment") == function("smollm2", "sentiment") != function("mistral", "sentiment")
    expected = {"gemma": True, "smollm2": True, "mistral": False}
    for folder, prompted in expected.items():
        assert folders.experiment(ROOT / folder / f"{folder}_sentiment.py").prompted is prompted


@pytest.mark.parametrize("task", [*TASKS, "sentiment", "sentiment_loop", "features"])
def test_the_mains_of_the_encoders_are_equal(task):
    assert function("distilbert", task) == function("minilm", task)
    for name in {"sentiment_loop": ["loop", "validate"]}.get(task, []):
        assert function("distilbert", task, name) == function("minilm", task, name)


STAGES = {
    "newsgroups": "rows", "samsum": "rows", "of_task": "rows", "tune": "train", "labels": "test", "summaries": "test",
    "baseline": "test", "finish": "record",
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_an_encoder_goes_through_the_same_stages(task):
    """It gets a head instead of a prompt: rows, training, test and record come in the same order."""

    def stages(folder):
        calls = [node for node in ast.walk(ast.parse(function(folder, task))) if isinstance(node, ast.Call)]
        calls = sorted((c for c in calls if isinstance(c.func, ast.Attribute)), key=lambda c: (c.lineno, c.col_offset))
        named = [(c.func.value.id if isinstance(c.func.value, ast.Name) else "", c.func.attr) for c in calls]
        return ["test" if call == ("evaluation", "of_task") else STAGES[call[1]] for call in named if call[1] in STAGES]

    expected = ["rows", "train", "test", "record"] if task in TASKS[:2] else ["rows", "test", "record"]
    assert {folder: stages(folder) for folder in FOLDERS} == dict.fromkeys(FOLDERS, expected)


def parts(text):
    """A script's text by what its lines belong to: "docstring", "settings", or "code"."""
    tree, lines = ast.parse(text), text.splitlines()
    kinds = ["code"] * len(lines)
    for node in tree.body:
        name = "docstring" if isinstance(node, ast.Expr) and node is tree.body[0] else None
        if isinstance(node, ast.Assign) and node.targets[0].id in ("SETTINGS", "DEMO", "SHOTS", "EXPERIMENT"):
            name = "settings"
        if name:
            kinds[node.lineno - 1 : node.end_lineno] = [name] * (node.end_lineno - node.lineno + 1)
    return {kind: [line for line, of in zip(lines, kinds, strict=True) if of == kind] for kind in set(kinds)}


@pytest.mark.parametrize("task", TASKS)
def test_a_folders_script_differs_from_mistrals_in_docstring_and_settings_alone(task):
    expected = parts(read("mistral", task))["code"]
    assert len(expected) > 10
    assert [folder for folder in WRITERS if parts(read(folder, task))["code"] != expected] == []


@pytest.mark.parametrize("task", TASKS)
def test_mistrals_and_zephyrs_scripts_differ_in_a_few_lines(task):
    one, other = read("mistral", task).splitlines(), read("zephyr", task).splitlines()
    changed = [line for line in difflib.ndiff(one, other) if line[0] in "+-"]
    assert 2 <= len(changed) <= 12
    assert function("mistral", task) == function("zephyr", task)


def logic(path):
    """The bodies of a file's functions, and what the module does besides importing and naming, each as lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    named = ast.FunctionDef | ast.Import | ast.ImportFrom | ast.Assign | ast.Expr
    rest = [node for node in tree.body if not isinstance(node, named)]
    return [ast.unparse(node).splitlines() for node in [*functions, *rest]]


def test_facts_and_wording_have_no_logic():
    for folder in FOLDERS:
        assert [logic(ROOT / folder / name) for name in ("model.py", "prompts.py")] == [[], []], folder


# Every hyper-parameter on the page

RUN = {"max_document_tokens", "trainer", "epochs", "learning_rate", "lr_scheduler", "warmup_ratio", "optimizer"}
RUN |= {"weight_decay", "max_grad_norm", "batch_size", "keep", "seed"}
ADAPTER = {"quantization", "lora_alpha", "dropout", "targets"}
WRITING = {"max_new_tokens", "lora_r", "micro_batch_size", *ADAPTER}
TRAININGS = [
    path
    for folder in FOLDERS
    for path in scripts(folder)
    if folders.experiment(path).kind in ("training", "loop")
]  # fmt: skip
OFF = (None, False, 0)  # a setting that does not apply
ALL_ROWS = {"train_sample_fraction": 1.0, "num_beams": 1}  # what is as natural


def named(path, name="SETTINGS"):
    """[names that a Settings(…) call, or a dictionary, of the script's assignment to `name` gives]."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    value = next((n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == name), None)
    calls = [node for node in ast.walk(value) if isinstance(node, ast.Call) and node.func.id == "Settings"]
    if calls:
        return [{keyword.arg for keyword in call.keywords} for call in calls]
    return [{key.value for key in value.keys}]


def test_every_setting_of_a_training_is_known_to_these_tests():
    used = {name for path in TRAININGS for each in named(path) for name in each}
    assert len(TRAININGS) == 2 * 10 + 4 + 3 + 4
    assert RUN | WRITING <= used <= set(Settings.names())


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_a_training_names_every_hyper_parameter_that_applies(path):
    """Nothing that the record will hold is hidden in a default."""
    experiment = folders.experiment(path)
    (told,) = named(path)
    wanted = RUN | (WRITING if path.parent.name in WRITERS else {"pooling"})
    if experiment.kind == "training":
        wanted |= {"micro_batch_size"}
    assert wanted - told == set()
    silent = {name: value for name, value in vars(experiment.settings).items() if name not in told}
    assert {name: value for name, value in silent.items() if value not in OFF and ALL_ROWS.get(name) != value} == {}
    if experiment.adapter:
        (told,) = named(path, "ADAPTER")
        assert told >= ADAPTER
        assert told <= set(Settings.names())


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_a_run_without_flags_has_the_settings_on_its_page_and_no_others(path, monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    experiment = folders.experiment(path)
    run = experiment.resolve([])
    assert run.settings == experiment.settings
    assert run.identity.settings == experiment.settings.fields()
    assert run.checkpoint.name == experiment.first.checkpoint
    targets = experiment.facts.ALL_TARGETS if experiment.settings.full_tune else experiment.facts.ATTENTION_TARGETS
    if experiment.settings.lora_r:
        assert experiment.settings.targets == targets


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_prompt_leaves_room_for_its_answer_in_every_variants_context(folder):
    """Review A.14."""
    context = min(variant.context for variant in folders.load_module(ROOT / folder / "model.py").VARIANTS)
    seen = 0
    for path in scripts(folder):
        experiment = folders.experiment(path)
        for settings in experiment.by_task.values():
            if settings and settings.max_new_tokens:
                seen += 1
                assert (settings.prompt_tokens or settings.max_document_tokens) + settings.max_new_tokens <= context
    assert (seen > 0) == (folder in WRITERS)


# The core


def core():
    return sorted((ROOT / "common").glob("*.py"))


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_core_is_small():
    sizes = {path.name: lines(path) for path in core()}
    assert {name: size for name, size in sizes.items() if size > 350} == {}
    assert sum(sizes.values()) <= 3000


def code(path):
    """A file's code without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.unparse(tree).lower()


def test_the_core_knows_no_model_by_name():
    """But for the two checkpoints that are embedded."""
    embedded = {"smollm2", "minilm"}
    words = {*FOLDERS, "llama", "phi", "bert"} - embedded
    variants = [variant for facts in folders.facts() for variant in facts.VARIANTS]
    for variant in (each for each in variants if each.checkpoint not in embedded):
        words |= {variant.name.lower(), variant.checkpoint.lower()}
    assert len(words) > 20
    pattern = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(words))) + r")(?![\w-])")
    assert len(core()) > 15
    assert {path.name: hits for path in core() if (hits := set(pattern.findall(code(path))))} == {}


# The studies' figures

EXPERIMENT = ("task", "model", "method", "train_sample_fraction", "lora_r", "epochs", "temperature", "top_k")
EXPERIMENT += ("num_beams", "seed", "epoch", "instance")
COLUMNS = ["table", "head", "row", "column", *EXPERIMENT, "metric", "value", "source", "suspect", "note", "home"]


def published():
    """(folder, line) of every figure in the folders' published.csv."""
    for folder in FOLDERS:
        with open(ROOT / folder / "published.csv", encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            assert reader.fieldnames == COLUMNS, folder
            yield from ((folder, line) for line in reader)


def test_every_published_figure_has_one_home():
    homes, cited = {}, {}
    for folder, line in published():
        if line["value"]:
            where = homes if line["home"] == folder else cited
            key = tuple(line[name] for name in (*EXPERIMENT, "metric", "value"))
            key += (line["row"],) if line["task"] == "serving" else ()  # which data were served, it says there alone
            where.setdefault(key, set()).add((folder, line["home"]))
    assert len(homes) == 333
    assert [figure for figure, places in homes.items() if len(places) > 1] == []
    for figure, places in cited.items():
        assert homes[figure] == {(home, home) for _, home in places}, figure


def test_a_figure_is_of_an_experiment_that_these_scripts_can_run():
    """Fields, not formatted text: a number where a number belongs, and words that a record has."""
    methods = {"lora", "tgi", "before"}  # of the studies alone
    for record in kept():
        methods.add(identity.method(record["identity"]))
    tasks = {*data.TASKS, "serving"}
    lines = [line for _, line in published()]
    for line in lines:
        assert line["task"] in tasks, line
        assert line["metric"] in metrics.TITLES, line
        assert line["suspect"] in ("", "yes")
        for name in ("train_sample_fraction", "lora_r", "epochs", "temperature", "top_k", "num_beams", "seed", "epoch"):
            assert line[name] == "" or float(line[name]) > 0, line
        if line["value"]:
            assert float(line["value"]) >= 0
            assert line["source"], line
    assert len(lines) > 500


def kept():
    return [files.read_json(path) for path in sorted(ROOT.glob("*/results/*.json"))]


def test_a_figure_that_is_suspect_says_why():
    marked = [line for _, line in published() if line["suspect"]]
    assert len(marked) > 60
    assert all(line["note"] for line in marked)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_first_variant_is_the_default_and_every_variant_is_pinned(folder):
    facts = folders.load_module(ROOT / folder / "model.py")
    readme = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    for variant in facts.VARIANTS:
        embedded = variant.checkpoint in ("smollm2", "minilm")
        assert re.fullmatch(r"[\w-]+==[\d.]+" if embedded else "[0-9a-f]{40}", variant.revision), variant
        assert variant.checkpoint in readme
        assert 0 < variant.linear_parameters < variant.parameters
    own = {line["model"] for home, line in published() if home == folder and line["home"] == folder}
    assert not own or facts.VARIANTS[0].name.lower() in own
