"""Whole corpora: many files in, as many out, on one machine or on several.

    plan.py     what is to be done: inputs, and the output of each
    record.py   what is done already and still current
    batches.py  the unit of work: files of about one length
    job.py      a batch read, vocoded and written, by whichever engine
    local.py    the engine on one machine
"""
