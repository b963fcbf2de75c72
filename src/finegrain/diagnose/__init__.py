"""What a run did, in words: displacement, length, coverage of the credit, agreement with people's marks."""
