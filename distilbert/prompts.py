"""What DistilBERT reads. An encoder gets no instruction and no examples, because its head determines the task.
Each template is therefore the text itself; it is here so that other wording can be tried.
"""

from common.encoding import Template

CLASSIFICATION = Template("{document}")  # the post
SUMMARIZATION = Template("{document}")  # one utterance, with the speaker's name, between [CLS] and [SEP]
SENTIMENT = Template("{document}")  # the review
