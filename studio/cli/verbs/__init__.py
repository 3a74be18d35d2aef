"""One file a verb: a request and a function, as `VERB`."""
