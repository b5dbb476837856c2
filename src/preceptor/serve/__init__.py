"""The judge behind HTTP: answers in, judgements out, for trainers that live in other processes.

`wire` says what may be posted and what comes back, `desk` queues and batches, `metrics` counts, `judge` is the service itself,
`start` binds it to a recipe and runs it.
"""
