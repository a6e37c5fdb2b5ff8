"""Hydra configuration of sdegen's commands, installed as package data."""
