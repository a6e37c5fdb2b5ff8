"""Work-precision benchmarks: measuring only, what is shown is made in report."""
