"""What a model is worth while it is trained and behind it: loss, answers, scores, the best of them."""
