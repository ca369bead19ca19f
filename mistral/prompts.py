"""The wording for Mistral-7B, a base model: plain text that breaks off where the answer belongs.

White space matters: prompts end right after the cue's colon, without a space, and answers begin with one
(Template.answer is " {answer}"), because the tokenizer writes a word and the space before it as one token.
Few-shot examples end in the same cue as the question, so that the pattern is there to be continued.
"""

from common.encoding import Template

CLASSIFICATION = Template(
    "Classify the newsgroup post below. The answer is exactly one of these classes:\n{labels}\n\n### Post:\n{document}",
    cue="\n\n### Class:",
)

SUMMARIZATION = Template(
    "Summarize the dialogue below in one or two short sentences.\n\n### Dialogue:\n{document}",
    cue="\n\n### Summary:",
)

_POST_EXAMPLE = "### Post:\n{document}\n\n### Class: {answer}\n\n"
_DIALOGUE_EXAMPLE = "### Dialogue:\n{document}\n\n### Summary: {answer}\n\n"


def _with_examples(template, example, shots):
    head, mark, rest = template.text.partition("### ")
    return Template(head + "{examples}" + mark + rest, template.cue, template.answer, example, shots)


# Prompts of the untrained model. Zero-shot wording = training wording.
BASELINE = {
    ("classification", "zero-shot"): CLASSIFICATION,
    ("classification", "one-shot"): _with_examples(CLASSIFICATION, _POST_EXAMPLE, 1),
    ("classification", "few-shot"): _with_examples(CLASSIFICATION, _POST_EXAMPLE, 20),  # one a class
    ("summarization", "zero-shot"): SUMMARIZATION,
    ("summarization", "one-shot"): _with_examples(SUMMARIZATION, _DIALOGUE_EXAMPLE, 1),
    ("summarization", "few-shot"): _with_examples(SUMMARIZATION, _DIALOGUE_EXAMPLE, 3),
}
