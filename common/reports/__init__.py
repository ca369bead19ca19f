"""Tables and pictures of the READMEs, made from records and published figures. README.md describes them."""
