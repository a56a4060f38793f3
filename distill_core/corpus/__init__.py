"""Whole corpora: many files in, as many out, on one machine or on several.

    conduct.py  from the plan to the summary, whichever engine does the work
    plan.py     what is to be done: inputs, and the output of each
    record.py   what is done already and still current
    batches.py  the unit of work: files of about one length
    job.py      how a corpus is vocoded, in words that can be sent anywhere
    runner.py   a loaded job: a batch is read, vocoded and written; blocks.py for long sounds, write.py for whole files
    local.py    the engine on one machine; resources.py says how many workers it is good for
    ray_*.py    the engine on several
    files.py    where files are: here, or by way of remote.py elsewhere
"""
