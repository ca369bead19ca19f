"""The wording for Phi-2, a base model that has seen many exercises: its card's "Instruct: … Output:" format.

White space matters: prompts end right after "Output:", without a space, and answers begin with one (Template.answer is
" {answer}"), because the tokenizer writes a word and the space before it as one token. Examples of one- and few-shot
prompts have the same form. The zero-shot prompt is that of training.
"""

from common.encoding import Template

CLASSIFICATION = Template(
    "{examples}Instruct: Name the class of the newsgroup post, exactly one of these:\n{labels}\nPost: {document}",
    cue="\nOutput:",
    example="Instruct: Name the class of the newsgroup post.\nPost: {document}\nOutput: {answer}\n\n",
)

SUMMARIZATION = Template(
    "{examples}Instruct: Summarize the dialogue in one or two short sentences.\n{document}",
    cue="\nOutput:",
    example="Instruct: Summarize the dialogue in one or two short sentences.\n{document}\nOutput: {answer}\n\n",
)

INSTRUCTIONS = Template(
    "Instruct: {document}",
    cue="\nOutput:",
    extra="\n{input}",
)
