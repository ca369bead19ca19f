"""Tables and pictures of the READMEs, made of records and published figures. README.md says what they promise."""
