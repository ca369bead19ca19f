"""The wording for Zephyr, a chat model: one user turn of its chat template, answered in the assistant's turn.

The template writes <|user|>, </s> and <|assistant|> itself. The start of the assistant's turn asks for the answer, so
there is no cue (with one, a small chat model repeats it). The answer begins without a space and ends in </s>, which the
loss counts. Examples of one- and few-shot prompts are in the same user turn. The zero-shot prompt is that of training.
"""

from common.encoding import Template

CLASSIFICATION = Template(
    "Which newsgroup is the post below from? Answer with exactly one of these names and nothing else:\n{labels}\n\n"
    "{examples}Post:\n{document}",
    example="Post:\n{document}\nNewsgroup: {answer}\n\n",
)

SUMMARIZATION = Template(
    "{examples}{document}\n\nSummarize the dialogue above in one or two short sentences.",
    example="{document}\n\nSummary: {answer}\n\n",
)
