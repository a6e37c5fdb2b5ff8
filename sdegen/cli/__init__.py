"""The commands: each composes a configuration, calls the library, and prints."""
