"""The command line. A verb is one file in `studio/cli/verbs`; nothing else has to be told about it."""
