"""Models and samplers of other libraries, each a module of its own with its extra."""
