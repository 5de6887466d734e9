"""Where every result comes from, and whether it was touched since.

This file imports nothing on purpose: a stage that writes a run record has every `__init__` on the way in
its code digest, so a name re-exported here would make an edit of the audit rerun the whole study.
"""
