"""What training and evaluations ask: needles, questions about code, next lines, and the mixture of them."""
