"""What several judgements of given answers say about the data: columns that repair pairs, and pairs made of trees. Pure."""
