"""Which rows an optimizer step and a forward pass have."""

import random


def largest_divisor(batch_size, most):
    """The largest micro-batch size of at most `most` rows that divides batch_size."""
    return max(n for n in range(1, max(1, most) + 1) if batch_size % n == 0)


def nothing_to_learn(row):
    """A row like `row` that adds nothing to the loss. It fills a short last batch up, so that each process has rows."""
    return {"input_ids": row["input_ids"][:1], "labels": [-100] if isinstance(row["labels"], list) else -100}


def by_length(lengths, batch_size, seed, fill=1):
    """A sampler whose batches have rows of similar length: half of a random batch can be padding.

    Every epoch the rows are shuffled, sorted within groups of 16 batches, and the batches shuffled. The order depends
    on seed and epoch alone, unlike that of transformers' sampler, so that a resumed run goes on in it.

    fill: the number len(lengths), of a row with nothing to learn, is added at the end up to a multiple of `fill` rows.
    """
    import torch

    class ByLength(torch.utils.data.Sampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return len(lengths) + -len(lengths) % fill

        def __iter__(self):
            generator = random.Random(f"{seed} {self.epoch}")
            order = generator.sample(range(len(lengths)), len(lengths))
            group = 16 * batch_size
            batches = []
            for start in range(0, len(order), group):
                similar = sorted(order[start : start + group], key=lengths.__getitem__)
                batches += [similar[i : i + batch_size] for i in range(0, len(similar), batch_size)]
            last = batches.pop() if len(batches[-1]) < batch_size else []  # a short batch has to come last
            generator.shuffle(batches)
            filling = [len(lengths)] * (len(self) - len(lengths))
            return iter([row for batch in [*batches, last, filling] for row in batch])

    return ByLength()
