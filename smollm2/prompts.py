"""The wording for SmolLM2, a chat model: one user turn of its chat template, answered in the assistant's turn.

The template writes <|im_start|>, <|im_end|> and the roles itself. The start of the assistant's turn asks for the
answer, so there is no cue; the answer begins without a space and ends in <|im_end|>, which the loss counts. Examples of
one- and few-shot prompts are in the same user turn. The zero-shot prompt is that of training. The instruction is before
the document, as in the folders of base models.
"""

from common.encoding import Template

CLASSIFICATION = Template(
    "Classify the newsgroup post below. The answer is exactly one of these classes:\n{labels}\n\n"
    "{examples}### Post:\n{document}",
    example="### Post:\n{document}\n\n### Class: {answer}\n\n",
)

SUMMARIZATION = Template(
    "Summarize the dialogue below in one or two short sentences.\n\n{examples}### Dialogue:\n{document}",
    example="### Dialogue:\n{document}\n\n### Summary: {answer}\n\n",
)

INSTRUCTIONS = Template(
    "Below is an instruction. Write a response that does what it asks.\n\n### Instruction:\n{document}",
    extra="\n\n### Input:\n{input}",
)

SENTIMENT = Template(
    "Is the movie review below negative or positive? Answer with that one word.\n\n{examples}### Review:\n{document}",
    example="### Review:\n{document}\n\n### Sentiment: {answer}\n\n",
)
