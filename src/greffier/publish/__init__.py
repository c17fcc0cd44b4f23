"""Commits become a stream per conversation, for everybody who follows it.

Three rules keep it complete, whatever is lost on the way:

* A signal (a local commit, NOTIFY, a poll) only says *look*.  What is sent is read back from the
  record, from the position the stream has reached.
* The flag is lowered *before* the read: a commit during the read raises it again.
* A slow poll and a heartbeat of positions stand behind the signals, so a lost one costs delay and
  nothing else.
"""
