"""SetFit (Tunstall et al. 2022, arXiv 2209.11055), a baseline for few labels: the encoder is tuned on pairs of training
texts, alike if they share a class, and a logistic regression is fitted on its features. The package setfit does it.
"""

import logging
import tempfile
import time
import warnings

from common import console, qlora, training
from common.encoders import probe

PAIRS = 5  # for each training text, of the same class, and as many of different classes
TUNING = "tuning on pairs"  # name of this part of a stage


def classes(checkpoint, reader, data, settings, execution, timing):
    """The predicted class of every test row. reader: a Reader, which cuts the texts as for the other methods; timing:
    the evaluation.Timing that counts the seconds."""
    import datasets
    import setfit
    import transformers

    datasets.disable_progress_bars()
    logging.getLogger("setfit").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "'pin_memory'")
    train, test = (decoded(reader, getattr(data, split), data.labels, split) for split in ("train", "test"))
    training.seed(settings)
    model = setfit.SetFitModel(qlora.reading(SentenceEncoder(settings), checkpoint), probe.regression(settings))
    rows = datasets.Dataset.from_dict({"text": train, "label": [row["target"] for row in data.train]})
    began = time.monotonic()
    with training.fused_layers(model.model_body[0].auto_model), tempfile.TemporaryDirectory() as folder:
        arguments = setfit.TrainingArguments(
            output_dir=folder,
            num_epochs=1,
            num_iterations=PAIRS,
            seed=settings.seed,
            report_to="none",
            save_strategy="no",
        )
        trainer = setfit.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[bar()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    timing.beside(TUNING).batches.append((time.monotonic() - began, len(train)))
    began = time.monotonic()
    predicted = model.predict(test, batch_size=execution.inference_batch_size, as_numpy=True).tolist()
    timing.batches.append((time.monotonic() - began, len(test)))
    return predicted


def bar():
    """A callback that shows the progress of the steps."""
    import transformers

    class Bar(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **keywords):
            self.shown = console.progress(state.max_steps, TUNING, "step")

        def on_step_end(self, args, state, control, **keywords):
            self.shown.update(1)

        def on_train_end(self, args, state, control, **keywords):
            self.shown.close()

    return Bar()


class SentenceEncoder:
    """What qlora.reading calls to read the encoder of a checkpoint with the pooling of its features."""

    def __init__(self, settings):
        self.settings = settings

    def from_pretrained(self, source, revision):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        keywords = {"revision": revision, "use_safetensors": True}
        encoder = Transformer(str(source), model_kwargs=keywords, max_seq_length=self.settings.max_document_tokens)
        return SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension(), self.settings.pooling)])


def decoded(reader, rows, labels, split):
    """The texts of rows, cut as `reader` cuts them."""
    ids, _ = reader.inputs(rows, labels, split)
    return reader.tokenizer.batch_decode(ids, skip_special_tokens=True)
