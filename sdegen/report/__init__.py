"""The pages of benchmarks, made from points alone, and of runs, made from their folders."""
