"""One module per change of the schema. What is released is never edited."""
