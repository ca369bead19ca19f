"""Draw each picture from its content. plots.py makes the contents and escapes their texts. Every function of a content
returns a matplotlib Figure."""

COLOURS = ("#0b6e99", "#c2571a", "#5b5ea6", "#4d7c3a", "#b5387a", "#8a6d00")
# Settings of the decoding study; one beam is greedy decoding.
AXES = {"temperature": "temperature", "num_beams": "beams", "top_k": "top-k"}
LINES = {"bertscore_f1": "BERTScore F1", "rouge1": "ROUGE-1", "bleu": "BLEU"}
MANY = 4  # with more classes, their names are written upright


def panels(number, width=3.2, height=2.7, columns=None):
    """(Figure, its axes), in rows of `columns`, without: side by side. width, height: of a panel, in inches."""
    from matplotlib.figure import Figure

    columns = min(number, columns or number)
    rows = -(-number // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[number:]:
        axis.remove()
    return figure, axes[:number]


def curves(content):
    """Loss, gradient norm and learning rate by step, in one colour for each method; loss and accuracy of the validation
    rows after each epoch."""
    titles = {"loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
    figure, axes = panels(len(titles), height=2.9)
    for colour, (label, history) in zip(COLOURS, content.items(), strict=False):
        for axis, name in zip(axes, titles, strict=True):
            alpha = 0.35 if name == "loss" else 1  # faint, because its running mean is drawn over it
            axis.plot(history["step"], numbers(history[name]), color=colour, linewidth=0.8, alpha=alpha)
        axes[0].plot(history["step"], running_mean(history["loss"]), color=colour, label=f"{label}: running mean")
        validation, last = history["validation"], history["step"][-1]
        ends = [last * (i + 1) / len(validation) for i in range(len(validation))]
        losses = numbers([epoch["loss"] for epoch in validation])
        axes[0].plot(ends, losses, "o--", color=colour, markersize=4, label=f"{label}: validation")
        for end, epoch in zip(ends, validation, strict=True):
            if None not in (epoch["accuracy"], epoch["loss"]):
                style = {"textcoords": "offset points", "xytext": (-2, 8), "ha": "right", "color": colour}
                axes[0].annotate(f"{epoch['accuracy']:.1%}", (end, epoch["loss"]), fontsize=8, **style)
    for axis, title in zip(axes, titles.values(), strict=True):
        axis.set(xlabel="optimizer step", ylabel=title)
        axis.set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def numbers(values):
    """The values with nan for None, which matplotlib draws as a gap."""
    return [float("nan") if value is None else value for value in values]


def running_mean(values):
    half_window = max(1, len(values) // 20)
    means = []
    for i in range(len(values)):
        window = [value for value in values[max(0, i - half_window) : i + half_window + 1] if value is not None]
        means.append(sum(window) / len(window) if window else float("nan"))
    return means


def confusion(content):
    """A confusion matrix for each stage: rows of each class by predicted class, shaded by their share of the class."""
    size = max(2.7, 0.32 * max(len(each["labels"]) for each in content.values()))
    figure, axes = panels(len(content), size + 0.6, size)
    for axis, (stage, matrix) in zip(axes, content.items(), strict=True):
        counts, labels = matrix["counts"], matrix["labels"]
        shares = [[n / max(1, sum(row)) for n in row] for row in counts]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                axis.text(j, i, count, ha="center", va="center", color="white" if shares[i][j] > 0.6 else "black")
        axis.set(title=stage, xlabel="taken for", ylabel="is")
        axis.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > MANY else 0)
        axis.set_yticks(range(len(labels)), labels)
        axis.grid(visible=False)
    return figure


def decoding(content):
    """A panel for each setting and a line for each metric; a dashed line of the same colour is the echo's score."""
    figure, axes = panels(len(content))
    for axis, (name, points) in zip(axes, content.items(), strict=True):
        places = range(len(points))
        for colour, (metric, title) in zip(COLOURS, LINES.items(), strict=False):
            scores = [each[metric] for _, each in points]
            axis.errorbar(places, values(scores), yerr=around(scores), color=colour, marker="o", capsize=3, label=title)
            echo = [each[f"echo_{metric}"]["value"] for _, each in points]
            axis.plot(places, echo, "--", color=colour, linewidth=1, label=f"{title} of an echo")
        axis.set(xlabel=AXES[name], ylabel="score, %", ylim=(0, 100))
        axis.set_xticks(places, [f"{value:g}" for value, _ in points])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def heat(content):
    """A panel for each number of epochs: rank by dropout, the score in each cell."""
    figure, axes = panels(len(content), max(3.6, 6 / len(content)), 3.2)  # one panel has to bear the title
    for axis, (title, points) in zip(axes, content.items(), strict=True):
        ranks, dropouts = (sorted({point[i] for point in points}) for i in (0, 1))
        scores = [[None] * len(dropouts) for _ in ranks]
        for rank, dropout, score in points:
            scores[ranks.index(rank)][dropouts.index(dropout)] = score
        known = [score for *_, score in points]
        shown = [[float("nan") if score is None else score for score in row] for row in scores]
        axis.imshow(shown, cmap="Blues", vmin=min(known) - 1, vmax=max(known) + 1, aspect="auto")
        middle = (min(known) + max(known)) / 2
        for i, row in enumerate(scores):
            for j, score in enumerate(row):
                if score is not None:
                    colour = "white" if score > middle else "black"
                    axis.text(j, i, f"{score:.1f}", ha="center", va="center", color=colour)
        axis.set(title=title, xlabel="dropout", ylabel="rank")
        axis.set_xticks(range(len(dropouts)), [f"{dropout:g}" for dropout in dropouts])
        axis.set_yticks(range(len(ranks)), ranks)
        axis.grid(visible=False)
    return figure


def values(scores):
    return [score["value"] for score in scores]


def around(scores):
    """Distances from the values to the ends of the intervals, in the form of matplotlib's errorbar."""
    return [
        [score["value"] - score["ci95"][0] for score in scores],
        [score["ci95"][1] - score["value"] for score in scores],
    ]


def sample_efficiency(content):
    """Accuracy by number of training rows: measured curves in colour with the band of their intervals, published ones
    grey, and dashed if they are unreliable."""
    figure, (axis,) = panels(1, 8.4, 4.2)
    marks, colours = iter("os^Dv<>phX*" * 9), iter(COLOURS * 9)
    for curve in sorted(content, key=lambda curve: (not curve["measured"], curve["suspect"])):
        rows, scores, lows, highs = zip(*curve["points"], strict=True)
        style = {"marker": next(marks), "label": curve["label"] + " †" * curve["suspect"]}
        if curve["measured"]:
            colour = next(colours)
            axis.plot(rows, scores, color=colour, markersize=5, linewidth=2, zorder=3, **style)
            axis.fill_between(rows, lows, highs, color=colour, alpha=0.2, linewidth=0)
            axis.vlines(rows, lows, highs, color=colour)
        elif curve["suspect"]:
            axis.plot(rows, scores, "--", color="#aaaaaa", linewidth=1, markersize=3, **style)
        else:
            axis.plot(rows, scores, "-", color="#666666", markerfacecolor="none", markersize=6, linewidth=1, **style)
    axis.set(xscale="log", xlabel="training rows", ylabel="accuracy on the test rows, %", ylim=(0, 100))
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return figure


def base_to_tuned(content):
    """A line for each run, with the scores of the untrained and of the tuned model and their intervals."""
    figure, (axis,) = panels(1, 8.4, 0.9 + 0.45 * len(content))
    for place, (_, base, tuned) in enumerate(content):
        axis.annotate(
            "", (tuned["value"], place), (base["value"], place), arrowprops={"arrowstyle": "->", "alpha": 0.4}
        )
        for score, colour, name in ((base, "#999999", "untrained"), (tuned, COLOURS[0], "tuned")):
            title = name if place == 0 else None
            spread = [[each[0]] for each in around([score])]
            axis.errorbar([score["value"]], [place], xerr=spread, color=colour, marker="o", capsize=3, label=title)
    axis.set(xlabel="score, %", ylabel="run", xlim=(0, 100), ylim=(len(content) - 0.5, -0.5))
    axis.set_yticks(range(len(content)), [label for label, _, _ in content])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def cost_quality(content):
    """A panel for each task: the score by the seconds of learning, a line for each method, a point for each number of
    rows."""
    figure, axes = panels(len(content), 4.2, 3, columns=2)
    labels = dict.fromkeys(label for curves in content.values() for label in curves)
    colours = dict(zip(labels, COLOURS * len(labels), strict=False))
    marks = dict(zip(labels, "os^Dv<>phX*" * len(labels), strict=False))
    for axis, (title, curves) in zip(axes, content.items(), strict=True):
        for label, points in curves.items():
            seconds, scores = zip(*points, strict=True)
            style = {"color": colours[label], "marker": marks[label]}
            axis.errorbar(seconds, values(scores), yerr=around(scores), capsize=2, markersize=5, label=label, **style)
        axis.set(title=title, xscale="log", xlabel="learning, seconds", ylabel="score, %", ylim=(0, 100))
    shown = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def factors(content):
    """A line for each factor: the difference that our choice makes, with its interval, and a line at none."""
    figure, (axis,) = panels(1, 8.4, 0.9 + 0.4 * len(content))
    for place, (_, value, low, high) in enumerate(content):
        axis.errorbar([value], [place], xerr=[[value - low], [high - value]], color=COLOURS[0], marker="o", capsize=3)
    axis.axvline(0, color="#999999", linewidth=1)
    axis.set(xlabel="ours minus the study's, points", ylabel="factor", ylim=(len(content) - 0.5, -0.5))
    axis.set_yticks(range(len(content)), [name for name, *_ in content])
    return figure
