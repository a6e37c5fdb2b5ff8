"""The page of benchmarks: tables, figures, pictures and words made from points alone."""
