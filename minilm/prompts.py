"""What MiniLM reads. An encoder is not asked and does not answer: there is no instruction and no example, the
task is in the head. So each template is the text itself; it is here so that wording can be tried.
"""

from common.encoding import Template

CLASSIFICATION = Template("{document}")  # the post
SUMMARIZATION = Template("{document}")  # one utterance, with the speaker's name, between [CLS] and [SEP]
SENTIMENT = Template("{document}")  # the review
