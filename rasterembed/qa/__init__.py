"""Quality of an embedded dataset: a gate between its vectors and the people who search them."""
