"""Runs of experiments: from a configuration to objects, and what a finished one leaves behind."""
