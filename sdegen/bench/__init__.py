"""Work-precision benchmarks: problems, references, peers, errors, and the page that shows them."""
