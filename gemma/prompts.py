"""The wording for Gemma, base models and their chat variants: plain text that ends where the answer begins.

White space matters: prompts end right after the cue's colon, without a space, and answers begin with one
(Template.answer is " {answer}"), because the tokenizer writes a word and the space before it as one token.
Examples of one- and few-shot prompts have the same cue as the question, so that the model continues the pattern. The
zero-shot prompt is that of training.

The -it variants read the same text as one user turn of their chat template, without the cue: there the start of
the model's turn asks for the answer, which begins without a space.
"""

from common.encoding import Template

CLASSIFICATION = Template(
    "Classify the newsgroup post below. The answer is exactly one of these classes:\n{labels}\n\n"
    "{examples}### Post:\n{document}",
    cue="\n\n### Class:",
    example="### Post:\n{document}\n\n### Class: {answer}\n\n",
)

SUMMARIZATION = Template(
    "Summarize the dialogue below in one or two short sentences.\n\n{examples}### Dialogue:\n{document}",
    cue="\n\n### Summary:",
    example="### Dialogue:\n{document}\n\n### Summary: {answer}\n\n",
)

SENTIMENT = Template(
    "Is the movie review below negative or positive? Answer with that one word.\n\n{examples}### Review:\n{document}",
    cue="\n\n### Sentiment:",
    example="### Review:\n{document}\n\n### Sentiment: {answer}\n\n",
)
